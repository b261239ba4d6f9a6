import math

import pytest
import torch

from inheritune_lit.base.errors import InheritError
from inheritune_lit.evaluate import ValidationLoss, validation_loss


class Constant(torch.nn.Module):
    """Says the same of every token: probabilities 1/2, 1/4, 1/8, 1/8."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.log(torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 8])).to(dtype))

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.logits.expand(*idx.shape, 4)


def test_by_hand() -> None:
    # inputs are ignored, targets are tokens 1…: log2 of their probabilities is -1 -1, -2 -3, -3 -3
    batches = [torch.tensor([[3, 0, 0], [3, 1, 2]]), torch.tensor([[0, 2, 3]])]
    loss = validation_loss(Constant().train(), batches)
    assert loss.per_window == pytest.approx([1 * math.log(2), 2.5 * math.log(2), 3 * math.log(2)], rel=1e-6)
    mean = 6.5 / 3
    assert loss.mean == pytest.approx(mean * math.log(2), rel=1e-6)
    variance = ((1 - mean) ** 2 + (2.5 - mean) ** 2 + (3 - mean) ** 2) / 2
    assert loss.stderr == pytest.approx(math.sqrt(variance / 3) * math.log(2), rel=1e-6)
    assert loss.perplexity == pytest.approx(2**mean, rel=1e-6)
    assert ValidationLoss((1000.0,)).perplexity == float("inf")


def test_the_first_token_is_no_target_and_the_last_no_input() -> None:
    class Copy(torch.nn.Module):
        """Sure that the next token is this one."""

        def __init__(self) -> None:
            super().__init__()
            self.sharpness = torch.nn.Parameter(torch.tensor(100.0))

        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            return self.sharpness * torch.nn.functional.one_hot(idx, 4)

    assert validation_loss(Copy(), [torch.tensor([[2, 2, 2]])]).mean == 0
    assert validation_loss(Copy(), [torch.tensor([[1, 2, 2]])]).mean == 50  # wrong on one of two


def test_accumulates_in_float32() -> None:
    """4,096 equal losses: summed in bfloat16, they would stop growing at 256 times their size."""
    windows = torch.full((1, 4097), 3)
    loss = validation_loss(Constant(torch.bfloat16), [windows])
    assert loss.mean == pytest.approx(3 * math.log(2), rel=1e-2)
    in_bfloat16 = torch.tensor(0.0, dtype=torch.bfloat16)
    for _ in range(4096):  # the negative control
        in_bfloat16 += 2.0797
    assert in_bfloat16 / 4096 < 0.5 * 3 * math.log(2)


def test_paired_difference() -> None:
    better, worse = ValidationLoss((1.0, 5.0, 9.0)), ValidationLoss((1.5, 5.6, 9.4))
    difference, error = better.minus(worse)
    assert difference == pytest.approx(-0.5)
    assert error == pytest.approx(math.sqrt(0.01 + 0.01) / math.sqrt(2 * 3))
    assert error < better.stderr / 20
    with pytest.raises(InheritError, match="on 3 and on 1 windows can't be paired"):
        better.minus(ValidationLoss((1.0,)))


def test_no_or_one_window() -> None:
    with pytest.raises(InheritError, match="no validation window"):
        validation_loss(Constant(), [])
    assert math.isnan(ValidationLoss((1.0,)).stderr)
