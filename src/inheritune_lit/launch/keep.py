"""Which checkpoints stay: litGPT deletes none, and one takes three times its model's size."""

import shutil
from collections.abc import Callable
from pathlib import Path

from inheritune_lit.commit import InheritError
from inheritune_lit.launch.finish import bare_model

WEIGHTS_DIR = "weights"


def stays(steps: list[int], last: int, every: int | None) -> set[int]:
    """Of the steps that were saved, the `last` newest and every one that `every` divides."""
    return set(sorted(steps)[-last:]) | {step for step in steps if every and step % every == 0}


def tidy(run: Path, saved: Path, last: int, every: int | None, check: Callable[[Path], object]) -> None:
    """Gives a new checkpoint a copy of its bare weights, and removes those that need not stay.

    A copy is `RUN/weights/STEP`, a checkpoint folder for evaluation. It is never named `step-*`, which litGPT would try
    to resume from.

    Args:
        run: The run's folder.
        saved: The checkpoint's folder, `step-*`. Nothing is removed on account of one that is not whole.
        last: How many of the newest stay, at least one.
        every: Each that this divides stays too.
        check: Reads a checkpoint to its end, and raises InheritError if it is not whole.
    """
    try:
        check(saved)
        bare_model(saved, run / WEIGHTS_DIR / _step(saved), None, {"step": int(_step(saved))})
    except InheritError as error:
        print(f"{saved} is not whole, all older checkpoints stay: {error}", flush=True)
        return
    folders = {int(_step(folder)): folder for folder in run.glob("step-*")}
    for step in set(folders) - stays(list(folders), last, every):
        shutil.rmtree(run / WEIGHTS_DIR / _step(folders[step]), ignore_errors=True)
        folders[step].rename(doomed := run / f".removed-{folders[step].name}")  # whole under its name, or not there
        shutil.rmtree(doomed)


def _step(folder: Path) -> str:
    return folder.name.removeprefix("step-")
