"""The figures of a plan as a table to read."""

import textwrap
from typing import Any

from inheritune_lit.base.units import gib

WIDTH = 120


def table(figures: dict[str, Any]) -> str:
    sections = [_model(figures), _data(figures), _compute(figures), _memory(figures), _time(figures), _disk(figures)]
    lines = [figures["recipe"]]
    for title, entries in sections:
        lines += ["", title, *(_line(label, text) for label, text in entries)]
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=f"  {label:<24}", subsequent_indent=" " * 26, break_on_hyphens=False
    )


Section = tuple[str, list[tuple[str, str]]]


def _model(figures: dict[str, Any]) -> Section:
    model = figures["model"]
    inside, teacher = model["parameters_without_embeddings"], figures["teacher"]
    entries = [
        ("shape", f"{model['name']}, {model['blocks']} blocks; start: {model['start']}"),
        ("parameters", f"{model['parameters']:,}; without embedding and head {inside:,}"),
    ]
    if teacher:
        size = f"{teacher['parameters']:,} parameters" if teacher["parameters"] else "NOT COUNTED below: it is not here"
        entries.append(("teacher", f"{teacher['folder']}, weight {teacher['weight']}; {size}"))
    return "Model", entries


def _data(figures: dict[str, Any]) -> Section:
    training, data = figures["training"], figures["training"]["data"]
    batch = training["tokens_per_step"] // training["sequence"]
    entries = [
        ("tokens a step", f"{batch} sequences × {training['sequence']:,} = {training['tokens_per_step']:,}"),
        ("tokens in all", f"{training['tokens']:,}"),
        ("optimizer steps", f"{training['steps']:,}"),
    ]
    if not data["at_hand"]:
        stated = f"{data['epochs_stated']} as the recipe states; " if data["epochs_stated"] else ""
        return "Training", [*entries, ("epochs", f"{stated}{data['folder'] or 'its data'} is not here to count")]
    entries.append(("epochs", f"{data['epochs']:.3g} over {data['tokens']:,} tokens of {data['folder']}"))
    for name, domain in data["domains"].items():
        text = f"{domain['share']:6.1%}  {domain['tokens']:,} tokens, {domain['tokens_seen']:,} seen"
        entries.append((f"  {name}", text))
    return "Training", entries


def _compute(figures: dict[str, Any]) -> Section:
    flops, taught = figures["flops"], ", with the teacher's 2·N·D" * bool((figures["teacher"] or {}).get("parameters"))
    return "Compute", [
        ("6·N·D", f"{flops['six_n_d']:.3g} FLOPs{taught}: every parameter, embedding included; no attention over "
         "positions"),
        ("litGPT's own count", f"{flops['measured']:.3g} FLOPs: matrix products, attention over all T² pairs included; "
         "embedding look-up, norms and softmax not"),
    ]  # fmt: skip


def _memory(figures: dict[str, Any]) -> Section:
    memory, training, machine = figures["memory"], figures["training"], figures["machine"]
    compiled, eager = memory["compiled"], memory["eager"]
    sharded = memory["shards"] > 1
    entries = [
        ("weights", gib(compiled["weights"])),
        ("gradients", gib(compiled["gradients"]) + " (whole ones till a step's last micro-batch)" * sharded),
        ("optimizer states", gib(compiled["optimizer"])),
        ("low-precision weights", gib(compiled["copies"]) + (" (gathered)" if sharded else " (autocast's)")),
        ("activations", gib(compiled["activations"])),
        *([("teacher", f"{gib(compiled['teacher'])} (bfloat16)")] if compiled["teacher"] else []),
        ("logits and loss", gib(compiled["logits"])),
        ("allocator's and CUDA's", f"{gib(compiled['kept'])} of freed blocks, {gib(compiled['context'])} of CUDA"),
        ("peak by nvidia-smi", f"{gib(compiled['total'])}, {gib(compiled['in_use'])} of it in use; without "
         f"torch.compile, which litGPT always calls, {gib(eager['total'])}"),
        (f"of one {machine['title']}", f"{gib(memory['available'])}: {_verdict(memory)}"),
        ("largest micro-batch", f"{_fitting(compiled)} with torch.compile, {_fitting(eager)} without"),
    ]  # fmt: skip
    how = f"FSDP HYBRID_SHARD over the {memory['shards']} GPUs of a node" if sharded else "one device"
    title = f"Memory a GPU ({training['precision']}, {how}, micro-batch {training['micro_batch']}, no recomputation)"
    return title, entries


def _verdict(memory: dict[str, Any]) -> str:
    if memory["fits"]:
        return "fits"
    if memory["fits_if_given_back"]:
        return (
            "TIGHT: only while the allocator gives freed blocks back, which takes time; a smaller micro-batch, or "
            "PYTORCH_ALLOC_CONF=expandable_segments:True in the environment, avoids it"
        )
    return "DOES NOT FIT"


def _fitting(estimate: dict[str, Any]) -> str:
    return str(estimate["largest_micro_batch"] or "none")


def _time(figures: dict[str, Any]) -> Section:
    machine, time = figures["machine"], figures["time"]
    gpus = machine["devices"] * machine["nodes"]
    per_gpu = machine["peak_flops"] / 1e12
    title = f"Time ({gpus} × {machine['title']}, {per_gpu:g} TFLOP/s dense bfloat16: {machine['source']})"
    low, high = time["mfu"]
    assumed = f"assumed: {low:.0%} to {high:.0%} of the peak. {time['source']}."
    at_peak = f"{_hours(time['six_n_d_at_peak_seconds'])}: 6·N·D at 100 %, a bound that nothing beats"
    return title, [
        ("wall clock", " to ".join(map(_hours, time["seconds"]))),
        ("GPU-hours", " to ".join(f"{hours:,.3g}" if hours < 100 else f"{hours:,.0f}" for hours in time["gpu_hours"])),
        ("at the peak", at_peak),
        ("speed", assumed),
    ]


def _disk(figures: dict[str, Any]) -> Section:
    disk = figures["disk"]
    kept = f"{disk['checkpoints']} × {gib(disk['checkpoint'])} = {gib(disk['checkpoints_total'])}"
    return "Disk", [
        ("token shards", gib(disk["data"]) if disk["data"] else "not known"),
        ("checkpoints", f"{kept}: litGPT deletes none; remove old ones as it runs, or raise train.save_interval"),
    ]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 48:
        return f"{hours / 24:,.1f} days ({hours:,.0f} h)"
    return f"{hours:.1f} h" if hours >= 1 else f"{seconds / 60:.1f} min"
