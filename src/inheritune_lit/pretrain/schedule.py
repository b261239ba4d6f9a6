"""litGPT's counters, and what becomes of them when a run goes on with another number of GPUs or another micro-batch.

litGPT counts micro-iterations: its learning rate is a function of `iter_num` out of `max_iters`, `warmup_iters` of them
for the warm-up, and an optimizer step has the rate of its last one. With another micro-batch or other GPUs all of them
change, and the rates by a part of a step. So a run keeps the counters that it began with, its schedule.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inheritune_lit.base.errors import InheritError

VARIABLE = "INHERITUNE_SCHEDULE"


@dataclass(frozen=True)
class Schedule:
    """What litGPT computes the learning rate from."""

    accumulation: int
    """Micro-iterations of an optimizer step"""
    max_iters: int
    warmup_iters: int

    def learning_rate(self, get_lr: Any, lr: float, iteration: int, accumulation: int, min_lr: float) -> float:
        """The rate of a micro-iteration of another accumulation: that of the same step's end in this schedule.

        Args:
            get_lr: litGPT's own.
            lr: The peak.
            iteration: litGPT's `it`, micro-iterations done, of `accumulation` a step.
            accumulation: How many micro-iterations a step has now.
            min_lr: The end.
        """
        last = (iteration // accumulation + 1) * self.accumulation - 1
        return float(get_lr(lr, last, self.warmup_iters, self.max_iters, min_lr))

    def variable(self) -> dict[str, str]:
        """As an environment variable, which reaches every rank however it is started."""
        return {VARIABLE: f"{self.accumulation},{self.max_iters},{self.warmup_iters}"}

    @classmethod
    def of_environment(cls) -> "Schedule | None":
        value = os.environ.get(VARIABLE)
        return cls(*map(int, value.split(","))) if value else None

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def accumulation(train: Mapping[str, Any], gpus: int) -> int:
    """Micro-iterations of an optimizer step on so many GPUs, as litGPT computes it.

    Raises:
        InheritError: a batch is no number, or the global one is not made of whole micro-batches on each GPU, so that
            litGPT would shrink it.
    """
    batch, micro = train["global_batch_size"], train["micro_batch_size"]
    if not all(type(value) is int and value > 0 for value in (batch, micro)):
        raise InheritError(
            f"train.global_batch_size {batch!r} and train.micro_batch_size {micro!r}: expected whole numbers from 1 on."
        )
    if batch % (gpus * micro):
        raise InheritError(
            f"train.global_batch_size {batch} does not make whole micro-batches of {micro} on {gpus} GPUs: litGPT "
            "would train on a smaller batch in silence. Choose the micro-batch, or the number of GPUs, so that "
            "global_batch_size / GPUs is a multiple of micro_batch_size."
        )
    return int(batch // (gpus * micro))


def schedule(train: Mapping[str, Any], gpus: int, sequence: int, loader_windows: int | None) -> Schedule:
    """What litGPT will compute from a recipe's train block.

    Args:
        train: litGPT's settings.
        gpus: World size.
        sequence: Tokens of a window.
        loader_windows: Windows of all epochs of the loader, which lr_warmup_fraction is a fraction of.
    """
    iterations = accumulation(train, gpus)
    together = train["micro_batch_size"] * gpus
    max_iters = train["max_tokens"] // (together * sequence)
    if fraction := train.get("lr_warmup_fraction"):
        warmup = math.ceil(fraction * ((loader_windows or 0) // together))
    else:
        warmup = (train.get("lr_warmup_steps") or 0) * iterations
    return Schedule(iterations, max_iters, min(max_iters, warmup))
