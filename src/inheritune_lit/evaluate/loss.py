"""Validation loss of a model on frozen windows of held-out text: one function, so that numbers can be compared."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ValidationLoss:
    """Next-token cross-entropy in nats, window by window."""

    per_window: tuple[float, ...]
    """Mean over the tokens of each window; windows are of equal length"""

    @property
    def mean(self) -> float:
        return math.fsum(self.per_window) / len(self.per_window)

    @property
    def stderr(self) -> float:
        """Standard error of the mean over windows; NaN with a single one."""
        return _standard_error(self.per_window)

    @property
    def perplexity(self) -> float:
        return math.inf if self.mean > 709 else math.exp(self.mean)  # where a float ends

    def minus(self, other: "ValidationLoss") -> tuple[float, float]:
        """Mean difference and its standard error, paired window by window.

        What makes a window hard is hard for both models, so this error is much smaller than either loss's own.

        Raises:
            InheritError: the two were not measured on the same number of windows.
        """
        if len(self.per_window) != len(other.per_window):
            raise InheritError(
                f"Losses on {len(self.per_window)} and on {len(other.per_window)} windows can't be paired: measure "
                "both on the same windows."
            )
        differences = [ours - theirs for ours, theirs in zip(self.per_window, other.per_window, strict=True)]
        return math.fsum(differences) / len(differences), _standard_error(differences)


def _standard_error(values: Iterable[float]) -> float:
    values = list(values)
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def usable_device(device: str | None = None) -> str:
    """The device that was asked for, or a GPU if there is one.

    Raises:
        InheritError: PyTorch can't compute on it here.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except (AssertionError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InheritError(
            f"--device is {device}, which PyTorch can't use here: {reason}. Expected cpu, cuda, cuda:1, …; without "
            "--device it is a GPU if there is one."
        ) from error
    return device


def validation_loss(model: "torch.nn.Module", batches: Iterable["torch.Tensor"]) -> ValidationLoss:
    """Loss of a model on windows of tokens, accumulated in float32 whatever the model computes in.

    Args:
        model: Token ids (B, T) → logits (B, T, V). It is put into evaluation mode.
        batches: Windows of T + 1 token ids, (B, T + 1): the first T are the input, the last T the targets.

    Raises:
        InheritError: there is no window.
    """
    import torch

    losses: list[float] = []
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            windows = batch.to(device).long()
            losses += window_losses(model(windows[:, :-1]), windows)
    if not losses:
        raise InheritError("There is no validation window: the held-out text is shorter than one sequence.")
    return ValidationLoss(tuple(losses))


def window_losses(logits: "torch.Tensor", windows: "torch.Tensor") -> list[float]:
    """Mean next-token cross-entropy of each window in nats, in float32.

    Args:
        logits: For all but a window's last token, (B, T, V).
        windows: Token ids, (B, T + 1).
    """
    import torch

    targets = windows[:, 1:]
    nats = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return nats.view_as(targets).mean(dim=1).tolist()


def all_windows(data_path: Path, max_seq_length: int, batch_size: int) -> "Iterator[torch.Tensor]":
    """Every window of the held-out split in the order of the text, (B, T + 1); the last batch may be smaller."""
    from inheritune_lit.data.manifest import Manifest
    from inheritune_lit.data.order import Windows

    windows = Windows(Manifest(data_path), "val", max_seq_length)
    for start in range(0, len(windows), batch_size):
        yield windows.__getitems__(range(start, min(start + batch_size, len(windows))))


def validation_windows(data_path: Path, max_seq_length: int, batch_size: int, batches: int) -> "list[torch.Tensor]":
    """The first windows of the held-out split, the very ones that `litgpt pretrain` validates on.

    Args:
        data_path: What `inheritune prepare` wrote.
        max_seq_length: T, tokens a window has as input.
        batch_size: B, as the recipe's `micro_batch_size`.
        batches: How many, as the recipe's `eval.max_iters`; all there are if there are fewer.

    Returns:
        Batches of token ids, (B, T + 1).
    """
    from inheritune_lit.data import PackedTokens

    data = PackedTokens(data_path)
    data.connect(tokenizer=None, batch_size=batch_size, max_seq_length=max_seq_length)
    data.prepare_data()
    data.setup()
    return list(islice(data.val_dataloader(), batches))
