"""What is measured: losses of kept blocks, and how much each block does. Pure functions on a model and windows."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inheritune_lit.analyze.walk import Walk, attention_of
from inheritune_lit.evaluate import ValidationLoss, window_losses

if TYPE_CHECKING:
    from litgpt.model import GPT

SHARE = 0.9
Blocks = tuple[int, ...]
"""Numbers of blocks of a model, in the order in which they run"""


def attention_rank(attention: Tensor, share: float = SHARE) -> Tensor:
    """k*: the smallest rank whose singular values explain `share` of the variance (arXiv 2404.08634 v2).

    Args:
        attention: Matrices (…, T, T).

    Returns:
        Ranks (…), whole numbers.
    """
    matrices = attention.float()
    # eigenvalues of A·Aᵀ are the squared singular values, in a fraction of an SVD's time; ascending
    variance = torch.linalg.eigvalsh(matrices @ matrices.mT).clamp_min(0).flip(-1)
    return _how_many(variance, share)


def attention_mass(attention: Tensor, share: float = SHARE) -> Tensor:
    """m*: the smallest number of columns that hold `share` of the mass.

    A column's mass is its squared norm over the squared Frobenius norm (arXiv 2404.08634 v4, appendix C).

    Args:
        attention: Matrices (…, T, T).

    Returns:
        Numbers of columns (…).
    """
    return _how_many(attention.float().square().sum(-2).sort(descending=True).values, share)


def _how_many(parts: Tensor, share: float) -> Tensor:
    """How many of the largest parts, given in descending order, make up this share of their sum."""
    reached = parts.cumsum(-1) / parts.sum(-1, keepdim=True)
    return (reached < share - 1e-6).sum(-1) + 1  # 1e-6: float32 sums of what is exactly the share


def first_and_last(n_layer: int, keep: Iterable[int]) -> list[Blocks]:
    """All ways to keep one of these numbers of blocks as the first a and the last b of `n_layer`."""
    return [
        (*range(first), *range(n_layer - n + first, n_layer))
        for n in sorted(set(keep))
        for first in range(n, -1, -1)
        if n < n_layer or first == n
    ]


def head_start(blocks: Blocks) -> int:
    """How many of these are the model's first ones, in order: their hidden states need not be computed again."""
    return next((i for i, block in enumerate(blocks) if block != i), len(blocks))


def block_passes(n_layer: int, choices: Iterable[Blocks]) -> int:
    """Blocks that are run per batch: the whole model once for all choices, and for each what follows its first ones."""
    return n_layer + sum(len(blocks) - head_start(blocks) for blocks in choices)


def choice_losses(
    model: "GPT",
    batches: Iterable[Tensor],
    choices: Iterable[Blocks],
    on_pass: Callable[[int], object] = lambda _: None,
) -> dict[Blocks, ValidationLoss]:
    """Validation loss of only these blocks with the model's own embedding, norm and head, not trained any further.

    Hidden states of the model's first blocks are computed once for all choices; what follows a gap, for each. So all
    ways to keep the first a and last b of k blocks cost about k³/6 block passes, those that keep n blocks n²/2.

    Args:
        model: In evaluation mode; its device is used.
        batches: Windows of token ids, (B, T + 1).
        choices: Each the blocks to run, in their order.
        on_pass: Is told how many blocks were run.
    """
    losses: dict[Blocks, list[float]] = {blocks: [] for blocks in choices}
    device = next(model.parameters()).device
    with torch.inference_mode():
        for batch in batches:
            windows = batch.to(device).long()
            walk = Walk(model, windows[:, :-1])
            on_pass(len(walk.blocks))
            for blocks, found in losses.items():
                first = head_start(blocks)
                x = walk.states[first]
                for block in blocks[first:]:
                    x = walk.through(block, x)
                found += window_losses(walk.logits(x), windows)
                on_pass(len(blocks) - first)
    return {blocks: ValidationLoss(tuple(found)) for blocks, found in losses.items()}


def block_statistics(
    model: "GPT", batches: Iterable[Tensor], on_pass: Callable[[int], object] = lambda _: None
) -> list[dict[str, Tensor]]:
    """Attention rank and mass of each block, and what it does to the residual stream.

    Attention matrices are made for one block and one sequence at a time: heads · T² numbers.

    Args:
        model: In evaluation mode.
        batches: Windows of token ids, (B, T + 1).
        on_pass: Is told how many blocks were run.

    Returns:
        For each block k* `rank` and m* `mass`, (sequences, heads), and per sequence, (sequences,), means over its
        tokens: `cosine` of the block's input and output, `change`, the norm of what it adds as a share of its input's,
        and `norm` of the residual stream after it.
    """
    found: list[dict[str, list[Tensor]]] = [
        {name: [] for name in ("rank", "mass", "cosine", "change", "norm")} for _ in model.transformer.h
    ]
    device = next(model.parameters()).device
    with torch.inference_mode():
        for window in (window for batch in batches for window in batch):
            with ExitStack() as watched:
                for block, values in zip(model.transformer.h, found, strict=True):
                    watched.enter_context(attention_of(block, partial(_note_attention, values)))
                states = Walk(model, window[None, :-1].to(device).long()).states
            for values, before, after in zip(found, states, states[1:], strict=False):
                x, y = before[0].float(), after[0].float()
                values["cosine"].append(torch.cosine_similarity(x, y, dim=-1).mean())
                values["change"].append(((y - x).norm(dim=-1) / x.norm(dim=-1)).mean())
                values["norm"].append(y.norm(dim=-1).mean())
            on_pass(len(found))
    return [{name: torch.stack(values).cpu() for name, values in block.items()} for block in found]


def _note_attention(values: dict[str, list[Tensor]], attention: Tensor) -> None:
    values["rank"].append(attention_rank(attention)[0])
    values["mass"].append(attention_mass(attention)[0])


def summary(statistics: dict[str, Tensor], *, heads: bool) -> dict[str, object]:
    """A block's statistics in one number each, and rank and mass of every head if asked for.

    Rank and mass are the paper's: the largest over heads, averaged over sequences.
    """
    of_heads = {name: statistics[name].float() for name in ("rank", "mass")}
    return {
        **{name: values.amax(-1).mean().item() for name, values in of_heads.items()},
        **{name: values.mean().item() for name, values in statistics.items() if name not in of_heads},
        **({f"{name}_per_head": values.mean(0).tolist() for name, values in of_heads.items()} if heads else {}),
    }
