"""`inheritune plan`: what a recipe will take, before a GPU is rented."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.checkpoint.folder import MODEL_CONFIG, config_of, load_config
from inheritune_lit.plan.machines import MFU_HIGH, MFU_LOW, MFU_SOURCE, gpu_named
from inheritune_lit.recipes.recipe import Recipe

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from litgpt.config import Config

    from inheritune_lit.plan.memory import Run


def plan(
    recipe: Path,
    gpu: str = "a6000",
    devices: int | None = None,
    nodes: int | None = None,
    json: bool = False,
) -> None:
    """Parameters, steps, FLOPs, memory, time and disk of a `litgpt pretrain` recipe.

    Args:
        recipe: The YAML file.
        gpu: a6000, a40, a100-40, a100-80, h100, h100-pcie, h200, l40s or rtx3090.
        devices: GPUs of a node; the recipe's own if it states a number, else 1.
        nodes: Nodes; the recipe's own if left out.
        json: Print the figures as JSON, in plain units: bytes, seconds, tokens, FLOPs.
    """
    from inheritune_lit.plan.report import table

    figures = plan_recipe(recipe, gpu=gpu, devices=devices, nodes=nodes)
    print(json_format.dumps(figures, indent=2, ensure_ascii=False) if json else table(figures))


def plan_recipe(
    recipe: Path, *, gpu: str = "a6000", devices: int | None = None, nodes: int | None = None
) -> dict[str, Any]:
    """The figures of `inheritune plan --json`.

    Raises:
        InheritError: litGPT refuses the recipe, its batch does not divide by the GPUs, or the GPU is not known here.
    """
    machine = gpu_named(gpu)
    from inheritune_lit.recipes.parse import parse_recipe

    settings = parse_recipe(recipe)
    model = settings.model_config and settings.model_config.as_dict()
    config = config_of({"model_config": model, "model_name": settings.model_name})
    devices = devices or (settings.devices if isinstance(settings.devices, int) else 1)
    nodes = nodes or settings.num_nodes
    figures: dict[str, Any] = {
        "recipe": str(recipe),
        "model": _model(config, settings),
        "teacher": teacher_figures(Recipe.read(recipe)),
        "training": _training(Recipe.read(recipe), settings, devices, nodes),
        "machine": {"gpu": gpu.lower(), "title": machine.title, "devices": devices, "nodes": nodes}
        | {"memory_bytes": machine.memory_mib * 2**20, "peak_flops": machine.peak_tflops * 1e12}
        | {"source": machine.source},
    }
    figures["flops"] = _flops(config, figures)
    figures["memory"] = _memory(config, settings, figures)
    figures["time"] = _time(figures)
    figures["disk"] = _disk(config, settings, figures)
    return figures


def _model(config: "Config", settings: "Namespace") -> dict[str, Any]:
    from inheritune_lit.plan.model import count_parameters

    counted = count_parameters(config, tied=bool(settings.train.tie_embeddings))
    return {
        "name": config.name,
        "blocks": config.n_layer,
        "start": str(settings.initial_checkpoint_dir) if settings.initial_checkpoint_dir else "random",
        "parameters": counted.total,
        "parameters_without_embeddings": counted.inside,
    }


def teacher_figures(recipe: Recipe) -> dict[str, Any] | None:
    """The model that the training learns from, its size and cost unknown if it is not here; None without one."""
    from inheritune_lit.plan.model import count_parameters, measured_flops

    if recipe.teacher is None:
        return None
    known: dict[str, Any] = {"folder": str(recipe.teacher), "weight": recipe.data["weight"]}
    if not (recipe.teacher / MODEL_CONFIG).is_file():
        return known | {"parameters": None, "flops_per_token": None}
    config, sequence = load_config(recipe.teacher), recipe.sequence or 1
    flops = measured_flops(config, sequence, backward=False) / sequence
    return known | {"parameters": count_parameters(config).total, "flops_per_token": flops}


def _training(recipe: Recipe, settings: "Namespace", devices: int, nodes: int) -> dict[str, Any]:
    gpus = devices * nodes
    accumulation, train = recipe.accumulation(gpus), settings.train
    return {
        "sequence": recipe.sequence,
        "micro_batch": train.micro_batch_size,
        "micro_batches_per_step": accumulation,
        "sequences_per_device": accumulation * train.micro_batch_size,
        "tokens_per_step": recipe.step_tokens,
        "tokens": recipe.tokens,
        "steps": recipe.steps,
        "precision": settings.precision or "bf16-mixed",
        "data": _epochs(settings),
    }


def _epochs(settings: "Namespace") -> dict[str, Any]:
    """How often training goes over the data; every domain as often as the whole, as the order is a permutation."""
    from inheritune_lit.data.manifest import MANIFEST, Manifest

    options = (settings.data or {}).get("init_args") or {}
    folder = options.get("data_path")
    if not folder or not (Path(folder) / MANIFEST).is_file():
        return {"folder": str(folder) if folder else None, "at_hand": False, "epochs_stated": options.get("epochs")}
    manifest = Manifest(Path(folder))
    tokens = manifest.splits["train"].tokens
    domains = {entry["domain"]: entry["tokens"] for entry in manifest.content["splits"]["train"]}
    return {
        "folder": str(folder),
        "at_hand": True,
        "epochs_stated": options.get("epochs"),
        "tokens": tokens,
        "epochs": settings.train.max_tokens / max(1, tokens),
        "domains": {
            name: {
                "tokens": n,
                "share": n / max(1, tokens),
                "tokens_seen": round(settings.train.max_tokens * n / tokens),
            }
            for name, n in domains.items()
        },
    }


def _flops(config: "Config", figures: dict[str, Any]) -> dict[str, Any]:
    from inheritune_lit.plan.model import measured_flops

    training = figures["training"]
    per_token = measured_flops(config, training["sequence"]) / training["sequence"]
    teacher = figures["teacher"] or {}
    parameters = 6 * figures["model"]["parameters"] + 2 * (teacher.get("parameters") or 0)
    per_token += teacher.get("flops_per_token") or 0
    return {
        "six_n_d": parameters * training["tokens"],
        "measured": round(per_token * training["tokens"]),
        "measured_per_token": per_token,
    }


def _memory_run(config: "Config", settings: "Namespace", figures: dict[str, Any]) -> "Run":
    from inheritune_lit.plan import memory
    from inheritune_lit.plan.model import count_parameters, saved_for_backward

    training = figures["training"]
    name = settings.optimizer if isinstance(settings.optimizer, str) else settings.optimizer["class_path"]
    return memory.Run(
        parameters=count_parameters(config, tied=bool(settings.train.tie_embeddings)),
        saved=saved_for_backward(config, training["sequence"], training["precision"]),
        vocabulary=config.padded_vocab_size or config.vocab_size,
        sequence=training["sequence"],
        precision=training["precision"],
        optimizer_states=memory.OPTIMIZER_STATES.get(name.rpartition(".")[2], 2),
        shards=figures["machine"]["devices"] if figures["machine"]["devices"] * figures["machine"]["nodes"] > 1 else 1,
        teacher=(figures["teacher"] or {}).get("parameters") or 0,
    )


def _memory(config: "Config", settings: "Namespace", figures: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict, replace

    from inheritune_lit.plan.memory import largest_micro_batch, peak

    training, available = figures["training"], figures["machine"]["memory_bytes"]
    counted, estimates = _memory_run(config, settings, figures), {}
    for compiled in (False, True):
        run = replace(counted, compiled=compiled)
        at_peak = peak(run, training["micro_batch"], accumulates=training["micro_batches_per_step"] > 1)
        estimates["compiled" if compiled else "eager"] = asdict(at_peak) | {
            "in_use": at_peak.in_use,
            "total": at_peak.total,
            "largest_micro_batch": largest_micro_batch(run, training["sequences_per_device"], available),
        }
    return estimates | {
        "available": available,
        "shards": run.shards,
        "fits": at_peak.total <= available,
        "fits_if_given_back": at_peak.in_use + at_peak.context <= available,
    }


def _time(figures: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the run and GPU-hours, a range of each, as the speed is assumed."""
    machine = figures["machine"]
    gpus = machine["devices"] * machine["nodes"]
    rate = machine["peak_flops"] * gpus
    seconds = [figures["flops"]["measured"] / (rate * mfu) for mfu in (MFU_HIGH, MFU_LOW)]
    return {
        "mfu": [MFU_LOW, MFU_HIGH],
        "source": MFU_SOURCE,
        "seconds": seconds,
        "gpu_hours": [s * gpus / 3600 for s in seconds],
        "six_n_d_at_peak_seconds": figures["flops"]["six_n_d"] / rate,
    }


def _disk(config: "Config", settings: "Namespace", figures: dict[str, Any]) -> dict[str, Any]:
    """Bytes. litGPT keeps every checkpoint: weights and optimizer states, in the weights' type."""
    from inheritune_lit.plan.memory import OPTIMIZER_STATES

    training, interval = figures["training"], settings.train.save_interval
    name = settings.optimizer if isinstance(settings.optimizer, str) else settings.optimizer["class_path"]
    states = OPTIMIZER_STATES.get(name.rpartition(".")[2], 2)
    checkpoint = figures["model"]["parameters"] * (1 + states) * (2 if training["precision"] == "bf16-true" else 4)
    kept = (training["steps"] // interval if interval else 0) + 1
    data = training["data"]
    unique = data.get("tokens") or (training["tokens"] // data["epochs_stated"] if data["epochs_stated"] else None)
    token_bytes = 2 if (config.padded_vocab_size or config.vocab_size) <= 2**16 else 4
    return {
        "data": unique * token_bytes if unique else None,
        "checkpoint": checkpoint,
        "checkpoints": kept,
        "checkpoints_total": kept * checkpoint,
    }
