"""What tells one run from another: what it is made from, exactly, and how it goes."""

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

from inheritune_lit.base.files import digest_of, read_json
from inheritune_lit.checkpoint.folder import RECEIPT, checkpoint_folder
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.trace import STEPS, step_losses
from inheritune_lit.pretrain.record import identity_of
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.report.subjects import Subject
from inheritune_lit.runs.folder import TRACE, Run

ALIKE = ("32-true", "bf16-mixed", "16-mixed")  # which keep the weights in float32
SHARES = (25, 50, 100)  # per cent of the tokens at which validation losses are compared


def recipe_hashes(settings: Mapping[str, Any]) -> dict[str, str]:
    """A hash for each block of a recipe without what changes no batch and no update: folders, devices, micro-batch.

    litGPT's eval.max_iters counts micro-batches, so that it stands for the windows that it means.
    """
    kept = identity_of(settings)
    if kept.get("precision") in ALIKE:
        kept["precision"] = "weights in float32"
    if isinstance(evaluated := kept.get("eval"), dict):
        kept["eval"] = evaluated | {"max_iters": validation_windows(settings)}
    return {name: digest_of(value) for name, value in sorted(kept.items()) if value is not None}


def validation_windows(settings: Mapping[str, Any]) -> int | None:
    """How many windows a validation takes at most."""
    iterations, micro = (settings.get("eval") or {}).get("max_iters"), Recipe.of(settings).micro_batch
    return iterations * micro if isinstance(iterations, int) and micro else None


def exact(settings: Mapping[str, Any], record: Mapping[str, Any], manifest: Manifest | None) -> dict[str, Any]:
    """What must be equal to the bit, as far as it is known; None is unknown.

    Args:
        settings: The recipe.
        record: `start`, `teacher` and `versions` as a run's receipt has them.
        manifest: The data's.
    """
    start = record.get("start") or {}
    splits = manifest.splits if manifest else {}
    return {
        "recipe": recipe_hashes(settings),
        "reference": ((start.get("inheritance") or {}).get("source") or {}).get("fingerprint"),
        "start": start.get("fingerprint"),
        "teacher": (record.get("teacher") or {}).get("fingerprint"),
        "tokenizer": manifest.tokenizer["identity"] if manifest else None,
        "train": splits["train"].sha256 if manifest else None,
        "val": splits["val"].sha256 if manifest else None,
        "batches": batch_hashes(Recipe.of(settings), manifest) if manifest else [],
        "versions": dict(record.get("versions") or {}),
    }


def batch_hashes(recipe: Recipe, manifest: Manifest) -> list[str]:
    """A hash of the token ids of each of the first steps' batches: the same on any number of ranks."""
    from inheritune_lit.data.order import GlobalOrder, Windows

    windows = Windows(manifest, "train", recipe.sequence or 1)
    epochs, seed = int(recipe.data.get("epochs", 1)), int(recipe.data.get("seed", 42))
    order = iter(GlobalOrder(windows, seed=seed, epochs=epochs, batch_size=1))
    hashes = []
    for _ in range(min(STEPS[-1], recipe.steps or 0)):
        batch = windows.__getitems__(list(islice(order, recipe.global_batch)))
        hashes.append(hashlib.sha256(batch.numpy().astype("<i4").tobytes()).hexdigest()[:16])
    return hashes


def tokenizers_receipt(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The receipt of the folder that a recipe names as tokenizer_dir: surgery's, of random starts too."""
    folder = settings.get("tokenizer_dir")
    path = checkpoint_folder(folder) / RECEIPT if folder else None
    return read_json(path, "receipt") if path and path.is_file() else None


def numerics(run: Run) -> dict[str, Any]:
    """How a run computed, none of which should change what comes out by more than rounding does.

    Not the micro-batch, but how many of them a rank takes a step, as litGPT's warm-up goes by these.
    """
    launches = [launch for launch in run.receipt.get("launches", []) if isinstance(launch, Mapping)]
    last = launches[-1] if launches else {}
    gpus, batch = last.get("gpus") or [], Recipe.of(run.recipe).global_batch
    ranks, micro = last.get("world_size"), last.get("micro_batch_size")
    return {
        "precision": run.recipe.get("precision"),
        "compiled": last.get("compiled"),
        "ranks": ranks,
        "accumulation": batch // (ranks * micro) if batch and ranks and micro else None,
        "device": gpus[0] if gpus else "CPU",
        "resumed": len(launches) > 1,
    }


def first_losses(run: Run) -> dict[str, float]:
    """Step → loss over all its samples, before the step's update; of the steps that are compared and were traced."""
    losses = step_losses(run.folder / TRACE, Recipe.of(run.recipe).global_batch or 1)
    return {str(step): losses[step] for step in STEPS if step in losses}


def validations(run: Run) -> dict[str, dict[str, Any]]:
    """Per cent of the tokens → the validation there, or the last before it where no interval ends there."""
    steps, found = Recipe.of(run.recipe).steps or 0, {}
    for share in SHARES:
        reached = [point for point in run.curves["validation"] if 0 < point[0] * 100 <= steps * share]
        if reached and run.curves["training"] and run.curves["training"][-1][0] * 100 >= steps * share:
            found[str(share)] = {"tokens": reached[-1][1], "loss": reached[-1][2]}
    return found


def scores(subject: Subject) -> dict[str, Any]:
    """Suite → task → its score, with its standard error."""
    names = ("metric", "num_fewshot", "value", "stderr")
    return {
        suite: {task: {name: result[name] for name in names} for task, result in content["tasks"].items()}
        for suite, content in subject.evaluations.items()
    }


def domains(subject: Subject) -> dict[str, Any]:
    """Domain → loss on its held-out windows, in nats per token, with its standard error."""
    found = (subject.loss or {}).get("domains") or {}
    return {name: {key: entry[key] for key in ("mean", "stderr", "windows")} for name, entry in found.items()}
