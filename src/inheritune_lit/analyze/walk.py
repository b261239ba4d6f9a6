"""A model's forward pass taken apart: embedding, one block after another, norm and head, as litGPT runs them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from litgpt.model import GPT


class Walk:
    """Runs any blocks of a model in any order, each with the arguments that its own forward pass would give it.

    Nothing of litGPT's forward pass is written again: hooks note what it calls its blocks with, and a stand-in for them
    hands a hidden state of ours to its norm and head. So positions, rotary tables per block, scaled embeddings and
    capped logits are those of every architecture that litGPT knows.

    Args:
        model: In evaluation mode.
        idx: Token ids, (B, T).
    """

    def __init__(self, model: "GPT", idx: Tensor) -> None:
        self.model, self.idx = model, idx
        self.blocks: list[nn.Module] = list(model.transformer.h)
        self.states: list[Tensor] = []
        """states[n]: the hidden state after the first n blocks, (B, T, C)"""
        self._arguments: list[tuple[Any, ...]] = []
        with ExitStack() as hooks:
            for block in self.blocks:
                hooks.callback(block.register_forward_pre_hook(self._note).remove)
            hooks.callback(self.blocks[-1].register_forward_hook(lambda _, __, x: self.states.append(x)).remove)
            model(idx)

    def _note(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.states.append(inputs[0])
        self._arguments.append(inputs[1:])

    def through(self, block: int, x: Tensor) -> Tensor:
        """A hidden state after this block, (B, T, C)."""
        return self.blocks[block](x, *self._arguments[block])

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, V) of a hidden state, by the model's own norm and head."""
        own = self.model.transformer.h
        self.model.transformer.h = nn.ModuleList([_Give(x)])
        try:
            return self.model(self.idx)
        finally:
            self.model.transformer.h = own


class _Give(nn.Module):
    """Stands in for all blocks; its output is given."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, *_: Any) -> Tensor:
        return self.x


@contextmanager
def attention_of(block: nn.Module, take: Callable[[Tensor], object]) -> Iterator[None]:
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
