"""Which checkpoints stay: litGPT deletes none, and one takes three times its model's size."""

import shutil
from collections.abc import Callable
from pathlib import Path

from inheritune_lit.commit import InheritError
from inheritune_lit.launch.finish import bare_model
from inheritune_lit.launch.resume import step_of

WEIGHTS_DIR = "weights"


def stays(steps: list[int], last: int, every: int | None) -> set[int]:
    """Of the steps that were saved, the `last` newest and every one that `every` divides."""
    return set(sorted(steps)[-last:]) | {step for step in steps if every and step % every == 0}


def tidy(run: Path, last: int, every: int | None, check: Callable[[Path], object]) -> None:
    """Removes the checkpoints that need not stay, and gives each that stays a copy of its bare weights.

    A copy is `RUN/weights/STEP`, a checkpoint folder for evaluation. It is never named `step-*`, which litGPT would try
    to resume from.

    Args:
        run: The run's folder.
        last: How many of the newest stay, at least one.
        every: Each that this divides stays too.
        check: Reads a checkpoint to its end, and raises InheritError if it is not whole. Nothing is removed then.
    """
    for doomed in run.glob(".removed-*"):  # of a launch that was killed while it removed one
        shutil.rmtree(doomed)
    folders = {step: folder for folder in run.glob("step-*") if (step := step_of(folder)) >= 0}
    kept = stays(list(folders), last, every)
    if not folders:
        return
    try:
        check(folders[max(folders)])
        for step in sorted(kept):
            if not (copy := run / WEIGHTS_DIR / f"{step:08d}").exists():
                bare_model(folders[step], copy, None, {"step": step})
    except InheritError as error:
        print(f"A checkpoint is not whole, and all stay: {error}", flush=True)
        return
    for step in set(folders) - kept:
        shutil.rmtree(run / WEIGHTS_DIR / f"{step:08d}", ignore_errors=True)
        folders[step].rename(doomed := run / f".removed-{folders[step].name}")  # whole under its name, or not there
        shutil.rmtree(doomed)
