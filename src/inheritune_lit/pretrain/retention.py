"""Which checkpoints stay: litGPT deletes none, and one takes three times its model's size."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.pretrain.resume import step_of
from inheritune_lit.runs.folder import WEIGHTS_DIR


def stays(steps: list[int], last: int, every: int | None) -> set[int]:
    """Of the steps that were saved, the `last` newest and every one that `every` divides."""
    return set(sorted(steps)[-last:]) | {step for step in steps if every and step % every == 0}


def tidy(
    run: Path,
    last: int,
    every: int | None,
    check: Callable[[Path], object],
    copy: Callable[[Path, Path], object],
) -> None:
    """Removes the checkpoints that need not stay, then gives each that stays a copy of its bare weights.

    A copy is `RUN/weights/STEP`, a checkpoint folder for evaluation. It is never named `step-*`, which litGPT would try
    to resume from. What can't be done now is said and left to the next time: the training goes on.

    Args:
        run: The run's folder.
        last: How many of the newest stay, at least one.
        every: Each that this divides stays too.
        check: Reads a checkpoint to its end, and raises InheritError if it is not whole. Nothing is removed then.
        copy: Writes the bare weights of one into a folder.
    """
    for doomed in run.glob(".removed-*"):  # of a launch that was killed while it removed one
        with _going_on(f"{doomed} stays"):
            shutil.rmtree(doomed)
    folders = {step: folder for folder in run.glob("step-*") if (step := step_of(folder)) >= 0}
    kept, copies = stays(list(folders), last, every), {step: run / WEIGHTS_DIR / f"{step:08d}" for step in folders}
    newest, whole = sorted(folders)[-last:], False
    with _going_on("All checkpoints stay"):
        for step in newest:
            if step == newest[-1] or not copies[step].exists():  # what has a copy was whole when it was made
                check(folders[step])
        whole = True
    if not whole:
        return
    for step in set(folders) - kept:  # before anything is copied: a full disk gets room
        with _going_on(f"{folders[step]} stays"):
            shutil.rmtree(copies[step], ignore_errors=True)
            folders[step].rename(doomed := run / f".removed-{folders[step].name}")  # whole under its name, or not there
            shutil.rmtree(doomed)
    for step in sorted(kept):
        if not copies[step].exists():
            with _going_on(f"No copy of the weights of {folders[step]}"):
                copy(folders[step], copies[step])


@contextmanager
def _going_on(what: str) -> Iterator[None]:
    """What can't be done is no reason to end a training."""
    try:
        yield
    except (InheritError, OSError) as error:
        print(f"{what} for now: {error}", flush=True)
