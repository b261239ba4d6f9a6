"""A model's forward pass taken apart: embedding, one block after another, norm and head, as litGPT runs them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from litgpt.model import GPT


class Walk:
    """Runs any blocks of a model in any order, each with the arguments that its own forward pass would give it.

    Nothing of litGPT's forward pass is written again: stand-ins for the blocks note what it calls them with, and hand
    a hidden state of ours to its norm and head. So positions, rotary tables per block, scaled embeddings and capped
    logits are those of every architecture that litGPT knows.

    Args:
        model: In evaluation mode.
        idx: Token ids, (B, T).
    """

    def __init__(self, model: "GPT", idx: Tensor) -> None:
        self.model, self.idx = model, idx
        self.blocks: list[nn.Module] = list(model.transformer.h)
        notes = [_Note() for _ in self.blocks]
        with _blocks(model, notes), _until_noted(notes[-1]):
            model(idx)
        self.embedded: Tensor = notes[0].x
        """What goes into block 0, (B, T, C)"""
        self._arguments = [note.arguments for note in notes]

    def through(self, block: int, x: Tensor) -> Tensor:
        """A hidden state after this block, (B, T, C)."""
        return self.blocks[block](x, *self._arguments[block])

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, V) of a hidden state, by the model's own norm and head."""
        with _blocks(self.model, [_Give(x)]):
            return self.model(self.idx)


class _Noted(Exception):
    """Ends a forward pass whose rest is not wanted."""


class _Note(nn.Module):
    """Stands in for a block; keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.last = False

    def forward(self, x: Tensor, *arguments: Any) -> Tensor:
        self.x, self.arguments = x, arguments
        if self.last:
            raise _Noted
        return x


class _Give(nn.Module):
    """Stands in for all blocks; its output is given."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, *_: Any) -> Tensor:
        return self.x


@contextmanager
def _until_noted(last: _Note) -> Iterator[None]:
    last.last = True
    with suppress(_Noted):
        yield


@contextmanager
def _blocks(model: "GPT", blocks: "list[Any]") -> Iterator[None]:
    own = model.transformer.h
    model.transformer.h = nn.ModuleList(blocks)
    try:
        yield
    finally:
        model.transformer.h = own


@contextmanager
def attention_of(block: nn.Module, take: Any) -> Iterator[None]:
    """While it lasts, `take` gets the block's attention matrices, (B, heads, T, T), one forward pass at a time.

    litGPT's own attention makes them, with the identity for its values: scale, mask and capping are the model's.
    """
    attention: Any = block.attn
    own = attention.scaled_dot_product_attention

    def shown(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        length = k.size(-2)
        identity = torch.eye(length, dtype=v.dtype, device=v.device).expand(*v.shape[:2], length, length)
        take(own(q, k, identity, mask).transpose(1, 2))
        return own(q, k, v, mask)

    attention.scaled_dot_product_attention = shown
    try:
        yield
    finally:
        del attention.scaled_dot_product_attention
