"""The figures of a plan, as a table to read and as JSON."""

import textwrap
from dataclasses import asdict
from typing import Any

from inheritune_lit.base.units import gib
from inheritune_lit.plan.figures import Plan
from inheritune_lit.plan.machines import MFU_HIGH, MFU_LOW, MFU_SOURCE

WIDTH = 120
Section = tuple[str, list[tuple[str, str]]]


def table(plan: Plan) -> str:
    sections = [_model(plan), _training(plan), _compute(plan), _memory(plan), _time(plan), _disk(plan)]
    return "\n\n".join("\n".join([title, *(_line(*entry) for entry in entries)]) for title, entries in sections)


def _line(label: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=f"  {label:<24}", subsequent_indent=" " * 26, break_on_hyphens=False
    )


def _model(plan: Plan) -> Section:
    config, counted, teacher = plan.recipe.config, plan.parameters, plan.teacher
    entries = [
        ("shape", f"{config.name}, {config.n_layer} blocks; start: {plan.start}"),
        ("parameters", f"{counted.total:,}; without embedding and head {counted.inside:,}"),
    ]
    if teacher.folder:
        size = f"{teacher.parameters:,} parameters" if teacher.parameters else "NOT COUNTED below: it is not here"
        entries.append(("teacher", f"{teacher.folder}, weight {teacher.weight}; {size}"))
    return "Model", entries


def _training(plan: Plan) -> Section:
    batch, stated, folder = plan.recipe.global_batch, plan.recipe.data.get("epochs"), plan.recipe.data.get("data_path")
    entries = [
        ("tokens a step", f"{batch} sequences × {plan.sequence:,} = {plan.step_tokens:,}"),
        ("tokens in all", f"{plan.tokens:,}"),
        ("optimizer steps", f"{plan.steps:,}"),
    ]
    if not plan.manifest:
        known = f"{stated} as the recipe states; " if stated else ""
        return "Training", [*entries, ("epochs", f"{known}{folder or 'its data'} is not here to count")]
    tokens = max(1, plan.unique_tokens or 0)
    entries.append(("epochs", f"{plan.tokens / tokens:.3g} over {tokens:,} tokens of {folder}"))
    for name, size in plan.domains.items():
        seen = round(plan.tokens * size / tokens)
        entries.append((f"  {name}", f"{size / tokens:6.1%}  {size:,} tokens, {seen:,} seen"))
    return "Training", entries


def _compute(plan: Plan) -> Section:
    taught = ", with the teacher's 2·N·D" * bool(plan.teacher.parameters)
    return "Compute", [
        ("6·N·D", f"{plan.six_n_d:.3g} FLOPs{taught}: every parameter, embedding included; no attention over "
         "positions"),
        ("litGPT's own count", f"{plan.flops:.3g} FLOPs: matrix products, attention over all T² pairs included; "
         "embedding look-up, norms and softmax not"),
    ]  # fmt: skip


def _memory(plan: Plan) -> Section:
    peak, eager, sharded = plan.memory(), plan.memory(compiled=False), plan.shards > 1
    with_it, without = (plan.largest_micro_batch(compiled=compiled) or "none" for compiled in (True, False))
    how = f"FSDP HYBRID_SHARD over the {plan.shards} GPUs of a node" if sharded else "one device"
    return f"Memory a GPU ({plan.precision}, {how}, micro-batch {plan.micro_batch}, no recomputation)", [
        ("weights", gib(peak.weights)),
        ("gradients", gib(peak.gradients) + " (whole ones till a step's last micro-batch)" * sharded),
        ("optimizer states", gib(peak.optimizer)),
        ("low-precision weights", gib(peak.copies) + (" (gathered)" if sharded else " (autocast's)")),
        ("activations", gib(peak.activations)),
        *([("teacher", f"{gib(peak.teacher)} (bfloat16)")] if peak.teacher else []),
        ("logits and loss", gib(peak.logits)),
        ("allocator's and CUDA's", f"{gib(peak.kept)} of freed blocks, {gib(peak.context)} of CUDA"),
        ("peak by nvidia-smi", f"{gib(peak.total)}, {gib(peak.in_use)} of it in use; without "
         f"torch.compile, which litGPT always calls, {gib(eager.total)}"),
        (f"of one {plan.machine.title}", f"{gib(plan.machine.memory)}: {_verdict(plan)}"),
        ("largest micro-batch", f"{with_it} with torch.compile, {without} without"),
    ]  # fmt: skip


def _verdict(plan: Plan) -> str:
    if plan.fits:
        return "fits"
    if plan.fits_if_given_back:
        return (
            "TIGHT: only while the allocator gives freed blocks back, which takes time; a smaller micro-batch, or "
            "PYTORCH_ALLOC_CONF=expandable_segments:True in the environment, avoids it"
        )
    return "DOES NOT FIT"


def _time(plan: Plan) -> Section:
    """A range, as the speed is assumed."""
    machine, seconds = plan.machine, plan.seconds_range
    hours = [s * plan.gpus / 3600 for s in seconds]
    title = f"Time ({plan.gpus} × {machine.title}, {machine.peak_tflops:g} TFLOP/s dense bfloat16: {machine.source})"
    return title, [
        ("wall clock", " to ".join(map(_hours, seconds))),
        ("GPU-hours", " to ".join(f"{h:,.3g}" if h < 100 else f"{h:,.0f}" for h in hours)),
        ("at the peak", f"{_hours(plan.seconds(plan.six_n_d))}: 6·N·D at 100 %, a bound that nothing beats"),
        ("speed", f"assumed: {MFU_LOW:.0%} to {MFU_HIGH:.0%} of the peak. {MFU_SOURCE}."),
    ]


def _disk(plan: Plan) -> Section:
    total = f"{plan.checkpoints} × {gib(plan.checkpoint)} = {gib(plan.checkpoints * plan.checkpoint)}"
    return "Disk", [
        ("token shards", gib(plan.data_bytes) if plan.data_bytes else "not known"),
        ("checkpoints", f"{total}: litGPT deletes none; remove old ones as it runs, or raise train.save_interval"),
    ]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 48:
        return f"{hours / 24:,.1f} days ({hours:,.0f} h)"
    return f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.1f} min"


def as_json(plan: Plan) -> dict[str, Any]:
    """The figures in plain units: bytes, seconds, tokens, FLOPs; ranges from the faster to the slower."""
    config, counted, machine, seconds = plan.recipe.config, plan.parameters, plan.machine, plan.seconds_range
    memory: dict[str, dict[str, int | None]] = {
        name: {**plan.memory(compiled=on).as_json(), "largest_micro_batch": plan.largest_micro_batch(compiled=on)}
        for name, on in (("compiled", True), ("eager", False))
    }
    return {
        "model": {"name": config.name, "blocks": config.n_layer, "start": plan.start, "parameters": counted.total}
        | {"parameters_without_embeddings": counted.inside},
        "teacher": asdict(plan.teacher) | {"folder": str(teacher)} if (teacher := plan.teacher.folder) else None,
        "training": {"sequence": plan.sequence, "tokens_per_step": plan.step_tokens, "tokens": plan.tokens}
        | {"steps": plan.steps, "micro_batch": plan.micro_batch, "micro_batches_per_step": plan.accumulation}
        | {"precision": plan.precision, "tokens_of_an_epoch": plan.unique_tokens, "tokens_of_domains": plan.domains},
        "machine": {"gpu": plan.gpu, "devices": plan.devices, "nodes": plan.nodes}
        | {"memory_bytes": machine.memory, "peak_flops": machine.peak_flops},
        "flops": {"six_n_d": plan.six_n_d, "measured": plan.flops, "measured_per_token": plan.flops_per_token},
        "memory": memory | {"shards": plan.shards, "fits": plan.fits, "fits_if_given_back": plan.fits_if_given_back},
        "time": {"mfu": [MFU_HIGH, MFU_LOW], "seconds": seconds, "gpu_hours": [s * plan.gpus / 3600 for s in seconds]}
        | {"six_n_d_at_peak_seconds": plan.seconds(plan.six_n_d)},
        "disk": {"data": plan.data_bytes, "checkpoint": plan.checkpoint, "checkpoints": plan.checkpoints},
    }
