"""A checkpoint folder opened as litGPT's model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.layers import ranges
from inheritune_lit.checkpoint.opening import open_weights

if TYPE_CHECKING:
    import torch
    from litgpt.model import GPT


def load_model(folder: Path) -> "GPT":
    """The model over the weights of a checkpoint folder, litGPT's or Hugging Face's, in evaluation mode.

    Raises:
        InheritError: its tensors are not those of its model_config.yaml, or their bytes not those that were saved.
    """
    import torch

    config, weights = open_weights(folder)
    weights.check()
    with torch.device("meta"):
        model = gpt2.build(config)
    one = {weights.identity(name): name for name in weights}  # tied tensors are read once, and are one in memory
    read = {identity: weights[name] for identity, name in one.items()}
    model.load_state_dict({name: read[weights.identity(name)] for name in weights}, assign=True)
    model.cos, model.sin = model.rope_cache(device=torch.device("cpu"))  # computed, not saved: still on meta
    return model.eval()


def keep_only(model: "GPT", blocks: Sequence[int]) -> None:
    """Takes all but the given blocks out of a model's forward pass, in place; the others keep their numbers.

    Raises:
        InheritError: the blocks are not in ascending order, so that the model can't run through them.
    """
    import torch

    if list(blocks) != sorted(blocks):
        raise InheritError(f"Blocks {ranges(blocks)} are not in the source's order: its logits can't be compared.")

    class Skip(torch.nn.Module):
        def forward(self, x: "torch.Tensor", *_: object) -> "torch.Tensor":
            return x

    for i in set(range(len(model.transformer.h))) - set(blocks):
        model.transformer.h[i] = Skip()
