"""What is measured: losses of kept blocks, and how much each block does. Pure functions on a model and windows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inheritune_lit.analyze.walk import Walk, attention_of
from inheritune_lit.evaluate import ValidationLoss, window_losses

if TYPE_CHECKING:
    from litgpt.model import GPT

SHARE = 0.9
SCALES = (0.1, 0.15, 0.22, 0.32, 0.46, 0.68, 1.0)
Pair = tuple[int, int]
"""(a, b): a model's first a and last b blocks, in their order"""


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


def pairs_of(n_layer: int, keep: Iterable[int]) -> list[Pair]:
    """All (a, b) that keep one of these numbers of blocks."""
    return [(a, n - a) for n in sorted(set(keep)) for a in range(n, -1, -1) if n <= n_layer]


def block_passes(n_layer: int, pairs: Sequence[Pair]) -> int:
    """Blocks that are run per batch: the first blocks once for all pairs, the last ones for each pair."""
    return n_layer + sum(b for a, b in pairs if a + b < n_layer)


@dataclass(frozen=True)
class PairLoss:
    """Of the first a and last b blocks, untrained."""

    own: ValidationLoss
    """With the model's own norm and head"""
    rescaled: ValidationLoss | None
    """Of first blocks: with the logits multiplied by `scale`, the best of SCALES"""
    scale: float | None


def is_linear(model: "GPT") -> bool:
    """Whether scaling the final norm's weight scales the logits: neither bias nor capping behind it."""
    biases = [getattr(module, "bias", None) for module in (model.transformer.ln_f, getattr(model, "lm_head", None))]
    return model.config.final_logit_softcapping is None and all(bias is None for bias in biases)


def pair_losses(
    model: "GPT", batches: Iterable[Tensor], pairs: Sequence[Pair], on_pass: Callable[[int], object] = lambda _: None
) -> dict[Pair, PairLoss]:
    """Validation loss of the first a and last b blocks with the model's own embedding, norm and head, untrained.

    For the first a alone also with its norm re-estimated by one factor, if norm and head are linear in their scale. A
    hidden state from the model's middle makes its head sure of nonsense, which costs more than knowing nothing; this
    shows how much of the loss is that.

    Hidden states of the first blocks are computed once. Those behind a gap differ with the gap's both ends, so that
    a pair costs b blocks more: all pairs of k blocks about k³/6, those that keep n blocks n²/2.

    Args:
        model: In evaluation mode; its device is used.
        batches: Windows of token ids, (B, T + 1).
        pairs: Which; (a, 0) are the first a.
        on_pass: Is told how many blocks were run.
    """
    n_layer = len(model.transformer.h)
    linear = is_linear(model)
    losses: dict[Pair, dict[float, list[float]]] = {
        (a, b): {scale: [] for scale in (SCALES if linear and b == 0 else (1.0,))} for a, b in pairs
    }
    device = next(model.parameters()).device
    with torch.inference_mode():
        for batch in batches:
            windows = batch.to(device).long()
            walk = Walk(model, windows[:, :-1])
            states = [walk.embedded]
            for block in range(n_layer):
                states.append(walk.through(block, states[-1]))
            on_pass(n_layer)
            for first, last in pairs:
                x = states[n_layer] if first + last == n_layer else states[first]
                for block in range(n_layer - last, n_layer) if first + last < n_layer else ():
                    x = walk.through(block, x)
                logits = walk.logits(x)
                for scale, found in losses[first, last].items():
                    found += window_losses(logits if scale == 1 else logits * scale, windows)
                on_pass(last if first + last < n_layer else 0)
    return {pair: _pair_loss(found) for pair, found in losses.items()}


def _pair_loss(found: dict[float, list[float]]) -> PairLoss:
    losses = {scale: ValidationLoss(tuple(values)) for scale, values in found.items()}
    scale = min(losses, key=lambda scale: losses[scale].mean)
    return PairLoss(losses[1.0], *((losses[scale], scale) if len(losses) > 1 else (None, None)))


@dataclass
class BlockStatistics:
    """One block, averaged over sequences (rank and mass of heads) or tokens (cosine and norms)."""

    rank: list[Tensor] = field(default_factory=list)
    """k* per sequence and head, (heads,) each"""
    mass: list[Tensor] = field(default_factory=list)
    """m* per sequence and head"""
    cosine: list[Tensor] = field(default_factory=list)
    """Cosine similarity of the block's input and output, per sequence"""
    change: list[Tensor] = field(default_factory=list)
    """Norm of what the block adds, as a share of its input's norm, per sequence"""
    norm: list[Tensor] = field(default_factory=list)
    """Norm of the residual stream after the block, per sequence"""

    def summary(self, *, heads: bool) -> dict[str, object]:
        rank, mass = torch.stack(self.rank).float(), torch.stack(self.mass).float()
        per_head = {"rank_per_head": rank.mean(0).tolist(), "mass_per_head": mass.mean(0).tolist()}
        return {
            "rank": rank.amax(-1).mean().item(),  # the paper's: the largest over heads, averaged over sequences
            "mass": mass.amax(-1).mean().item(),
            "cosine": torch.stack(self.cosine).mean().item(),
            "change": torch.stack(self.change).mean().item(),
            "norm": torch.stack(self.norm).mean().item(),
            **(per_head if heads else {}),
        }


def block_statistics(
    model: "GPT", batches: Iterable[Tensor], on_pass: Callable[[int], object] = lambda _: None
) -> list[BlockStatistics]:
    """Attention rank and mass, and what each block does to the residual stream.

    Attention matrices are made for one block and one sequence at a time: heads · T² numbers.

    Args:
        model: In evaluation mode.
        batches: Windows of token ids, (B, T + 1).
        on_pass: Is told how many blocks were run.
    """
    device = next(model.parameters()).device
    statistics = [BlockStatistics() for _ in model.transformer.h]
    with torch.inference_mode():
        for window in (window for batch in batches for window in batch):
            walk = Walk(model, window[None, :-1].to(device).long())
            x = walk.embedded
            for number, (block, found) in enumerate(zip(walk.blocks, statistics, strict=True)):

                def take(attention: Tensor, found: BlockStatistics = found) -> None:
                    found.rank += attention_rank(attention).cpu()
                    found.mass += attention_mass(attention).cpu()

                with attention_of(block, take):
                    after = walk.through(number, x)
                before, now = x.float()[0], after.float()[0]
                found.cosine.append(torch.cosine_similarity(before, now, dim=-1).mean().cpu())
                found.change.append(((now - before).norm(dim=-1) / before.norm(dim=-1)).mean().cpu())
                found.norm.append(now.norm(dim=-1).mean().cpu())
                x = after
                on_pass(1)
    return statistics
