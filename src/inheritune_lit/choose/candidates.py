"""Which cuts are worth a short training: a few of different kinds, by what the reference says of them untrained."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inheritune_lit.analyze.measures import Blocks, first_and_last, head_start
from inheritune_lit.checkpoint.layers import layers_argument
from inheritune_lit.evaluate import ValidationLoss

if TYPE_CHECKING:
    from litgpt.model import GPT
    from torch import Tensor

PAPER = "the first n"
ENDS = "first a + last b"
IMPORTANCE = "most important blocks"
GAP = "smallest turn over the gap"
DENSE = "dense at both ends"
SPREAD = "evenly spread"


@dataclass(frozen=True)
class Candidate:
    """Blocks to keep, why they are looked at, and their loss before any training."""

    kind: str
    blocks: Blocks
    untrained: ValidationLoss

    @property
    def layers(self) -> str:
        """As `inheritune surgery --layers` takes it."""
        return layers_argument(self.blocks)


@dataclass(frozen=True)
class Turns:
    """How far the reference's blocks turn the residual stream, as means over tokens."""

    cosines: tuple[float, ...]
    """Of each block's input and output; block importance is 1 minus it (ShortGPT, arXiv 2403.03853)"""
    angles: tuple[float, ...]
    """Angular distance, 0 to 1, between the inputs of block i and of block i + gap (arXiv 2403.17887)"""


def turns(model: "GPT", batches: "Iterable[Tensor]", gap: int) -> Turns:
    """One pass of the whole model a batch.

    Args:
        model: In evaluation mode.
        batches: Windows of token ids, (B, T + 1).
        gap: Blocks that a cut leaves out.
    """
    import torch

    from inheritune_lit.analyze.walk import Walk

    device = next(model.parameters()).device
    cosines: list[list[float]] = []
    angles: list[list[float]] = []
    with torch.inference_mode():
        for batch in batches:
            states = [state.float() for state in Walk(model, batch.to(device).long()[:, :-1]).states]
            near, far = (
                [torch.cosine_similarity(x, y, dim=-1).clamp(-1, 1) for x, y in zip(states, states[d:], strict=False)]
                for d in (1, gap)
            )
            cosines.append([cosine.mean().item() for cosine in near])
            angles.append([(cosine.acos() / math.pi).mean().item() for cosine in far])
    return Turns(_means(cosines), _means(angles))


def _means(rows: list[list[float]]) -> tuple[float, ...]:
    return tuple(math.fsum(column) / len(column) for column in zip(*rows, strict=True))


def kinds(n_layer: int, keep: int, turned: Turns) -> dict[Blocks, str]:
    """All cuts to `keep` blocks that are compared untrained, each under the first kind that names it."""
    last = n_layer - keep
    least = min(range(keep + 1), key=turned.angles.__getitem__)
    important = sorted(range(n_layer), key=turned.cosines.__getitem__)[:keep]
    named = [
        (PAPER, tuple(range(keep))),
        *((ENDS, blocks) for blocks in first_and_last(n_layer, [keep])),
        (GAP, (*range(least), *range(least + last, n_layer))),
        (IMPORTANCE, tuple(sorted(important))),
        (DENSE, dense_ends(n_layer, keep)),
        (SPREAD, tuple(i * n_layer // keep for i in range(keep))),
    ]
    found: dict[Blocks, str] = {}
    for kind, blocks in named:
        found.setdefault(blocks, kind)
    return found


def dense_ends(n_layer: int, keep: int) -> Blocks:
    """Blocks that lie close at both ends and far apart in the middle, as Chebyshev's nodes do."""
    half: list[int] = []
    for i in range(keep // 2):
        place = round((n_layer - 1) * (0.5 - 0.5 * math.cos(math.pi * i / max(1, keep - 1))))
        half.append(max(place, half[-1] + 1 if half else 0))
    middle = [(n_layer - 1) // 2] if keep % 2 else []
    return (*half, *middle, *(n_layer - 1 - block for block in reversed(half)))


def field(named: Mapping[Blocks, str], losses: Mapping[Blocks, ValidationLoss], count: int) -> list[Candidate]:
    """The cuts to train: the paper's, then those from which training is likeliest to find a better one.

    The untrained loss orders cuts of one kind only roughly: trained, the best first a + last b often keeps fewer first
    blocks than the best untrained one, sometimes more (benchmarks/starts.md). So both neighbours are in the field.
    """
    ends = sorted((b for b, kind in named.items() if kind == ENDS), key=lambda b: losses[b].mean)
    order = [next(blocks for blocks, kind in named.items() if kind == PAPER), *ends[:1]]
    if ends:
        best = head_start(ends[0])
        order += [b for b in ends if head_start(b) < best][:1] + [b for b in ends if head_start(b) > best][:1]
    others = sorted((b for b, kind in named.items() if kind not in (PAPER, ENDS)), key=lambda b: losses[b].mean)
    return [Candidate(named[b], b, losses[b]) for b in dict.fromkeys([*order, *others, *ends[1:]])][:count]
