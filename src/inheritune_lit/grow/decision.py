"""The question that growth asks after every stage: is the shorter model's validation loss at par?"""

import math
from dataclasses import dataclass

from inheritune_lit.base.errors import InheritError
from inheritune_lit.evaluate import ValidationLoss


@dataclass(frozen=True)
class Decision:
    """A model's loss against the benchmark's, both on all windows of D_val, paired window by window."""

    loss: float
    benchmark: float
    difference: float
    """Nats; positive is worse than the benchmark"""
    stderr: float
    """Of the paired difference over windows; shown, it decides nothing"""
    tolerance: float

    @property
    def at_par(self) -> bool:
        return self.difference <= self.tolerance

    def why(self, blocks: int, following: int | None) -> str:
        """The decision in a sentence, for whoever reads the ledger.

        Args:
            blocks: n of the model that was compared.
            following: The n that comes next, or None if there is none.
        """
        measured = (
            f"{blocks} blocks: validation loss {self.loss:.4f}, {self.difference:+.4f} ± {self.stderr:.4f} nats from "
            f"the benchmark's {self.benchmark:.4f}"
        )
        if self.at_par:
            return f"{measured}: within the tolerance of {self.tolerance:g}, at par."
        after = "max_layers is reached, not at par" if following is None else f"n grows to {following}"
        return f"{measured}: more than the tolerance of {self.tolerance:g}, {after}."


def decide(candidate: ValidationLoss, benchmark: ValidationLoss, tolerance: float) -> Decision:
    """Compares two models on the same windows.

    Raises:
        InheritError: they were not measured on the same windows, or a loss is not finite: that run has diverged, and
            more blocks would not be the answer.
    """
    difference, stderr = candidate.minus(benchmark)
    if not math.isfinite(difference):
        raise InheritError(
            f"The validation losses {candidate.mean} and {benchmark.mean} (benchmark) can't be compared: a run has "
            "diverged. Lower the recipe's learning rate and start over in another out_dir."
        )
    return Decision(candidate.mean, benchmark.mean, difference, stderr, tolerance)
