"""`keep: final`: which folders no later stage needs. What they were is still in the runs' receipts, logs and losses."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from inheritune_lit.grow.stages import Settings, Stage, folder, start_folder

CHECKPOINTS = 2
"""How many of a training's newest stay while it runs"""


def optimizer_states(settings: Settings, stage: Stage) -> list[Path]:
    """litGPT's checkpoints, two thirds of them optimizer states: needless once the run's `model` is measured.

    `launch` adds copies of their weights, and sets torn ones aside.
    """
    run = folder(settings, stage)
    return sorted(path for pattern in ("step-*", "final", "weights", ".torn-*") for path in run.glob(pattern))


def superseded(settings: Settings, stage: Stage) -> list[Path]:
    """A target that was not at par, once the next one is trained, which in mode `continue` started from it."""
    return [folder(settings, stage) / "model", start_folder(settings, stage.blocks)]


def starts(settings: Settings) -> list[Path]:
    """What trainings started from, once there is no more to train."""
    return [settings.out_dir / "starts"]


def delete(folders: Iterable[Path]) -> None:
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)
