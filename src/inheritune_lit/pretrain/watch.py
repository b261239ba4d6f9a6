"""What litGPT prints while it trains, understood: progress, a loss that has gone wrong, a run that stands still."""

import math
import re
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data import BEGINS
from inheritune_lit.runs.folder import STEP, VALIDATION

LOADING, FIRST_STEP, TRAINING = "loading", "first step", "training"
PHASES = {"Validating ...": "validating", "Verifying settings ...": "validating", "Measured TFLOPs": FIRST_STEP}
"""What litGPT prints → what it does then"""
SAVING = re.compile(r"Saving checkpoint to '(.+)'")
RECENT = 100  # logged steps that a loss and a step's time are compared with
ENOUGH = 10  # of them, before anything is said


class Diverged(InheritError):
    """The loss is NaN or infinite, or has jumped: the steps `first` to `last` were trained on since the log before."""

    def __init__(self, message: str, first: int, last: int) -> None:
        super().__init__(message)
        self.first, self.last = first, last


@dataclass(frozen=True)
class Progress:
    """Where a training is. Losses are litGPT's printed ones, in nats to three digits; those in its log have more."""

    doing: str
    step: int
    steps: int
    seconds_left: float | None = None
    """Known as soon as one micro-batch is through"""
    loss: float | None = None
    """Of the step that was logged just now; None if none was"""
    validation_loss: float | None = None
    """The newest"""


@dataclass
class Watch:
    """Reads litGPT's output line by line.

    Args:
        steps: Optimizer steps of the whole run.
        max_spike: Nats above the median of the recent losses at which a step's loss stops the run.
        stall_factor: Times the median step after which a run without a step is reported,
        stall_least: or so many seconds, if that is longer.
        step: Where the run begins, when it is resumed.
        accumulation: Micro-batches of a step, for an estimate before the first is logged.
    """

    steps: int
    max_spike: float = 3.0
    stall_factor: float = 10.0
    stall_least: float = 60.0
    step: int = 0
    accumulation: int = 1
    doing: str = LOADING
    untrained: float | None = None
    """Validation loss before the first step, which litGPT prints and logs nowhere"""
    validation_loss: float | None = None
    first_step: int | None = None
    saved: str | None = None
    """The checkpoint that litGPT said last it was going to save"""
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Seconds an optimizer step took, pauses for validation and saving left out"""
    began: float = 0.0
    last: float = 0.0
    interrupted: bool = True
    """Whether it validates or saves, or has done so since its last step"""
    _reported: bool = False
    _first_began: float | None = None
    """When the first micro-batch was taken"""
    _first_step_seconds: float | None = None
    """Of an optimizer step, by the first micro-batch or the first steps"""

    def line(self, text: str, now: float) -> Progress:
        """Takes in one line, at `now` seconds of a monotonic clock.

        Raises:
            Diverged: the loss of a step, or of the validation, is NaN or infinite, or has jumped.
        """
        if match := VALIDATION.search(text):
            self.validation_loss, self.interrupted = float(match[1]), True
            self.doing = TRAINING
            self._check(self.validation_loss, "validation loss", max(0, self.step - 1))
        elif match := SAVING.search(text):
            self.saved, self.interrupted, self.doing = match[1], True, "saving"
        elif phase := next((phase for said, phase in PHASES.items() if said in text), None):
            self.doing, self.interrupted = phase, True
        elif BEGINS.format(1) in text:
            self.doing, self._first_began = FIRST_STEP, now
        elif BEGINS.format(2) in text and self._first_began is not None:
            self._first_step_seconds = self._first_step_seconds or self.accumulation * (now - self._first_began)
        if not (match := STEP.search(text)):
            return self.progress()
        step, loss = int(match[2]), float(match[3])
        if self.first_step is None:
            self.began, self.first_step = now, step
            if self.step == 0 and match[4] != "n/a":
                self.untrained = self.validation_loss = float(match[4])
            if self._first_began is not None and step > self.step:
                self._first_step_seconds = (now - self._first_began) / (step - self.step)
        elif step > self.step and not self.interrupted:
            self.durations.append((now - self.last) / (step - self.step))
        before, self.step = self.step, max(step, self.step)
        self.last, self.interrupted, self._reported = now, False, False
        self._check(loss, "loss", before)
        self.losses.append(loss)
        self.doing = TRAINING
        return self.progress(loss)

    def progress(self, loss: float | None = None) -> Progress:
        """What it does now; with a loss, that of a step that was logged."""
        usual = self.step_seconds or self._first_step_seconds
        left = usual * (self.steps - self.step) if usual else None
        return Progress(self.doing, self.step, self.steps, left, loss, self.validation_loss)

    @property
    def step_seconds(self) -> float | None:
        """Median seconds of a recent optimizer step."""
        return median(self.durations) if self.durations else None

    def _check(self, loss: float, what: str, before: int) -> None:
        if not math.isfinite(loss):
            raise Diverged(f"The {what} is {loss} at step {self.step}.", before + 1, max(1, self.step))
        if what == "loss" and len(self.losses) >= ENOUGH and loss > (usual := median(self.losses)) + self.max_spike:
            raise Diverged(
                f"The loss jumped to {loss:.3f} at step {self.step}, {loss - usual:.3f} above the median of the "
                f"{len(self.losses)} logged steps before; --max_spike allows {self.max_spike:g}.",
                before + 1,
                self.step,
            )

    def stalled(self, now: float) -> str | None:
        """What to say, once, when there has been no step for long, and neither a validation nor a save is why."""
        usual, quiet = self.step_seconds, now - self.last
        if (
            not usual
            or len(self.durations) < ENOUGH
            or self._reported
            or self.interrupted
            or quiet < max(self.stall_factor * usual, self.stall_least)
        ):
            return None
        self._reported = True
        return (
            f"No step for {quiet:.0f} s since step {self.step}; they took {usual:.2f} s. A data worker or another "
            "rank may hang, or a file system: `py-spy dump --pid` shows where. The run is left alone."
        )
