"""The end of a run: its model as a bare checkpoint folder, its speed, its receipt."""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.base.folders import staging
from inheritune_lit.checkpoint.copy import TensorCopy, copy_tensors, distinct
from inheritune_lit.checkpoint.folder import HF_CONFIG, TOKENIZER_FILES, WEIGHTS, checkpoint_folder
from inheritune_lit.checkpoint.receipt import write_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.plan.figures import Plan
from inheritune_lit.plan.machines import peak_flops
from inheritune_lit.pretrain.resume import FINAL, check
from inheritune_lit.runs.folder import FORMAT, MODEL, RUN_RECEIPT, read_run

if TYPE_CHECKING:
    from litgpt.config import Config


def bare_model(
    saved: Path, out_dir: Path, config: "Config", recipe: Mapping[str, Any], receipt: Mapping[str, Any]
) -> int:
    """Writes a bare litGPT checkpoint folder out of one that `litgpt pretrain` saved, or replaces it.

    The optimizer's bytes are not touched, so that it takes a third of reading the file. litGPT writes the other files
    after lit_model.pth: a kill between them leaves the folder without, or with half of one.

    Args:
        saved: A folder with lit_model.pth, and the tokenizer files that litGPT copies.
        out_dir: The folder to write.
        config: The model's.
        recipe: litGPT's settings, whose tokenizer_dir's files come first.
        receipt: What the new receipt says beside the files.

    Returns:
        The number of parameters; tied ones count once.

    Raises:
        InheritError: a tensor is corrupt or not finite, there is no tokenizer, or there is no room.
    """
    from litgpt.utils import save_config

    weights = Weights(saved / WEIGHTS)
    copies = {name: TensorCopy(weights, name, weights.layout(name).dtype) for name in weights}
    with staging(out_dir, overwrite=True) as folder:
        save_config(config, folder)
        for source in _beside(saved, recipe):
            shutil.copyfile(source, folder / source.name)
        digest = copy_tensors(copies, folder / WEIGHTS, check_finite=True)
        parameters = sum(copies[name].numel for name in distinct(copies))
        write_receipt(folder, "run", {**receipt, "parameters": parameters}, sha256={WEIGHTS: digest})
    return parameters


def _beside(saved: Path, recipe: Mapping[str, Any]) -> list[Path]:
    """The tokenizer's files and config.json: those of the recipe's tokenizer_dir, or else those that litGPT copied."""
    stated = recipe.get("tokenizer_dir")
    places = [checkpoint_folder(stated), saved] if stated else [saved]
    files = {name: f / name for f in reversed(places) for name in (HF_CONFIG, *TOKENIZER_FILES) if (f / name).is_file()}
    if stated and not {"tokenizer.json", "tokenizer.model"} & files.keys():
        raise InheritError(
            f"No tokenizer for the model of {saved}: expected tokenizer.json or tokenizer.model in {places[0]}, the "
            "recipe's tokenizer_dir. Bring it back, and give the same command again."
        )
    return list(files.values())


def speed(plan: Plan, steps: int, seconds: float, gpus: list[str]) -> dict[str, float | None]:
    """Tokens per second of all devices together, and the share of their peak FLOP/s that the model's took.

    Args:
        plan: The run's figures.
        steps: Optimizer steps done in `seconds`.
        seconds: From the end of a launch's first step to that of its last; validation and saving are in it.
        gpus: Their names; none on a machine without.

    Returns:
        tokens_per_second and mfu, each None where it can't be known: too few steps, or a device with no known peak.
    """
    if seconds <= 0 or steps <= 0:
        return {"tokens_per_second": None, "mfu": None}
    rate, peak = steps * plan.step_tokens / seconds, peak_flops(gpus[0]) if gpus else None
    mfu = round(rate * plan.flops_per_token / (peak * plan.gpus), 4) if peak else None
    return {"tokens_per_second": round(rate, 1), "mfu": mfu}


def finish(run: Path, recipe: Mapping[str, Any], plan: Plan, record: Mapping[str, Any]) -> dict[str, Any]:
    """Verifies a run's last checkpoint, writes `model/`, and the receipt last.

    Args:
        run: The run's folder.
        recipe: As it ran.
        plan: Its figures.
        record: launch.json.

    Returns:
        The receipt.

    Raises:
        InheritError: the last checkpoint is missing or not whole.
    """
    final = run / FINAL
    if not (final / WEIGHTS).is_file():
        raise InheritError(f"litgpt pretrain ended well, and left no {final / WEIGHTS}. Is its disk full?")
    check(final / WEIGHTS, plan.recipe.config, recipe["train"], final_step=plan.steps)
    trained = {name: record[name] for name in ("start", "data", "teacher") if name in record}
    trained |= {"tokens": recipe["train"]["max_tokens"], "steps": plan.steps}
    parameters = bare_model(final, run / MODEL, plan.recipe.config, recipe, trained)
    launches = record["launches"]
    timed = {name: sum(launch.get(f"timed_{name}", 0) for launch in launches) for name in ("steps", "seconds")}
    curves = read_run(run).curves
    receipt = {
        "format": FORMAT,
        "kind": "run",
        "recipe": recipe,
        **trained,
        "parameters": parameters,
        "seconds": round(sum(launch.get("seconds", 0) for launch in launches), 1),
        **speed(plan, timed["steps"], timed["seconds"], record["gpus"]),
        **{name: record[name] for name in ("versions", "git", "launches")},
        "hardware": {"gpus": record["gpus"], "world_size": plan.gpus}
        | {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "validation_loss_untrained": record.get("validation_loss_untrained"),
        "losses": {name: curve[-1][2] if curve else None for name, curve in curves.items()},
    }
    write_json_whole(run / RUN_RECEIPT, receipt)
    return receipt
