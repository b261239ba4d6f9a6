"""Which checkpoint of a run to resume from: the newest that is whole, its counters converted where they must be."""

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.units import gib
from inheritune_lit.checkpoint.copy import check_finite
from inheritune_lit.checkpoint.folder import WEIGHTS, check_names_and_shapes
from inheritune_lit.checkpoint.weights import Unreadable, Weights, not_whole, zip_records

if TYPE_CHECKING:
    from litgpt.config import Config

FINAL = "final"
CONVERTED = ".converted"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of `litgpt pretrain` that was read to its end."""

    path: Path
    iteration: int
    step: int
    accumulation: int | None
    """Micro-iterations a step; None at the end of a run, which may have some that made no step"""


def newest(run: Path, config: "Config", train: Mapping[str, Any], steps: int) -> Checkpoint | None:
    """The newest checkpoint of a run that verifies, the final one first. Torn ones are renamed, never deleted.

    Returns:
        The checkpoint; None if there is none, or only what a kill cut short.

    Raises:
        Unreadable: one can't be read now; all are left as they are.
        InheritError: there are whole checkpoints, and none that this run can resume from.
    """
    final = run / FINAL
    refused: list[tuple[Path, InheritError]] = []
    found = None
    for folder in [final] * final.is_dir() + saved(run):
        try:
            found = check(folder / WEIGHTS, config, train, final_step=steps if folder == final else None)
            break
        except Unreadable:
            raise
        except InheritError as error:
            refused.append((folder, error))
    # a run that starts from scratch by itself may have lost days: only if there is nothing else to do
    if found is None and (whole := [str(reason) for folder, reason in refused if ends(folder / WEIGHTS)]):
        raise InheritError.listing(
            f"{run} has checkpoints, and none that it can resume from",
            whole,
            "They are left as they are. Mend what it says, or start from scratch with --restart.",
        )
    for folder, reason in refused:
        print(f"{folder} is not usable, and is {_set_aside(folder)} now: {reason}")
    return found


def ends(path: Path) -> bool:
    """Whether a file was written to its end, as far as can be told without reading all of it."""
    try:
        zip_records(path)
    except Unreadable:
        return True
    except InheritError:
        return False
    return True


def saved(run: Path) -> list[Path]:
    """The folders of a run's checkpoints on the way, the newest first."""
    return sorted(run.glob("step-*"), key=step_of, reverse=True)


def step_of(folder: Path) -> int:
    """3 for `step-00000003`; -1 for a folder that litGPT did not name."""
    digits = folder.name.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def _set_aside(folder: Path) -> Path:
    """Under a name that litGPT's `resume: auto` does not take for a checkpoint."""
    name, number = f".torn-{folder.name}", 1
    while (target := folder.with_name(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    folder.rename(target)
    return target


def check(path: Path, config: "Config", train: Mapping[str, Any], *, final_step: int | None = None) -> Checkpoint:
    """Reads all of a checkpoint: CRC-32 of every record, names and shapes, finite values, counters that agree.

    Args:
        path: lit_model.pth of `litgpt pretrain`, with optimizer.
        config: The run's model.
        train: The run's train block.
        final_step: The step it must have, for the last one of a run.

    Raises:
        InheritError: it is not whole, or not a checkpoint of this run.
    """
    import torch
    from torch.utils._pytree import keystr, tree_leaves_with_path

    _check_bytes(path)  # first: a fault of the disk is told as one by Python's reader only, not by torch's
    weights = Weights(path)
    check_names_and_shapes(weights, config, path.parent)
    content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    if not isinstance(content, dict) or not {"model", "optimizer", "iter_num", "step_count"} <= content.keys():
        raise InheritError(f"{path} holds no training state, expected model, optimizer, iter_num and step_count.")
    for place, value in tree_leaves_with_path(content):
        if isinstance(value, torch.Tensor):
            check_finite(value, keystr(place), path)
    return _counters(path, content, train["global_batch_size"], final_step)


def _check_bytes(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile lets through whatever damaged headers cause: RuntimeError, zlib.error
        raise not_whole(path, error, f"{path} is not whole: {error}.") from error
    if damaged:
        raise InheritError(f"{path} is corrupt: the CRC-32 of {damaged} is not what was recorded when it was saved.")


def _counters(path: Path, content: Mapping[str, Any], batch: int, final_step: int | None) -> Checkpoint:
    """The loader counts samples of all ranks, litGPT steps and micro-iterations: they must tell the same story."""
    iteration, step = content["iter_num"], content["step_count"]
    loader = content.get("train_dataloader") or {}
    consumed = loader.get("consumed") if isinstance(loader, Mapping) else loader
    counts = {"iter_num": iteration, "step_count": step, "its loader": 0 if consumed is None else consumed}
    if odd := [f"{name} is {str(value)[:40]}" for name, value in counts.items() if type(value) is not int]:
        raise InheritError(f"{path} is damaged: {', '.join(odd)}, expected a whole number.")
    problems = []
    if final_step is None and (step < 1 or iteration % step):
        problems.append(f"{iteration} micro-iterations do not make {step} whole steps")
    if consumed is not None and (consumed // batch != step or (final_step is None and consumed % batch)):
        problems.append(f"its loader is at sample {consumed:,}, its step {step} of {batch} ends at {step * batch:,}")
    if final_step is not None and step != final_step:
        problems.append(f"it is of step {step}, and the run has {final_step}")
    if final_step is None and path.parent.name != f"step-{step:08d}":
        problems.append(f"it is of step {step}, and its folder is named {path.parent.name}")
    if problems:
        raise InheritError(f"{path} contradicts itself: {'; '.join(problems)}.")
    return Checkpoint(path, iteration, step, None if final_step is not None else iteration // step)


def convert(checkpoint: Checkpoint, accumulation: int, run: Path) -> Path:
    """A copy of a checkpoint whose micro-iterations are counted with `accumulation` a step; all else is the same bytes.

    The loader's counter needs no converting: it counts the samples of all ranks.

    Raises:
        InheritError: there is no room for it.
    """
    import torch

    content = torch.load(checkpoint.path, map_location="cpu", mmap=True, weights_only=True)
    content["iter_num"] = checkpoint.step * accumulation
    target = run / CONVERTED / WEIGHTS
    try:
        target.parent.mkdir(exist_ok=True)
        torch.save(content, target)
    except (OSError, RuntimeError) as error:  # torch's writer says nothing but that it failed
        shutil.rmtree(target.parent, ignore_errors=True)
        size = checkpoint.path.stat().st_size
        raise InheritError(
            f"Can't write {target}, a copy of {checkpoint.path} with other counters ({error}). It takes {gib(size)} "
            "until the next checkpoint: free as much, or resume with the micro-batch and the GPUs of before."
        ) from error
    return target
