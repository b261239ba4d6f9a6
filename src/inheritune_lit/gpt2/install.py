"""GPT-2 in `litgpt pretrain`: its own start, and its place there. Importing this module imports all of litGPT."""

from functools import partial
from typing import Any

import litgpt.pretrain
from lightning.fabric.strategies import FSDPStrategy
from litgpt.model import CausalSelfAttention, GptNeoxMLP
from litgpt.pretrain import initialize_weights as litgpt_initialize_weights
from litgpt.utils import reset_parameters
from torch import nn

from inheritune_lit.gpt2 import build
from inheritune_lit.gpt2.model import GPT2


def initialize_weights(fabric: Any, model: nn.Module, n_layer: int, n_embd: int) -> None:
    """litGPT's function of this name for all other models; for a GPT-2, GPT-2's own initialisation.

    Normal with standard deviation 0.02, in the two projections onto the residual stream 0.02 / √(2 · n_layer); biases
    0, norms 1. litGPT's own leaves out the MLP's projection, and scales the embedding, here the head too, by width.
    """
    if not isinstance(model, GPT2):
        litgpt_initialize_weights(fabric, model, n_layer=n_layer, n_embd=n_embd)
        return
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Linear)):
            module.reset_parameters = partial(_normal, module, 0.02)  # type: ignore[method-assign]
    for module in model.modules():
        if isinstance(module, (CausalSelfAttention, GptNeoxMLP)):
            module.proj.reset_parameters = partial(_normal, module.proj, 0.02 / (2 * n_layer) ** 0.5)
    if not isinstance(getattr(fabric, "strategy", None), FSDPStrategy):  # which calls them when it wraps a module
        reset_parameters(model)


def _normal(module: nn.Embedding | nn.Linear, std: float) -> None:
    nn.init.normal_(module.weight, mean=0.0, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def install_in_litgpt() -> None:
    """Has `litgpt pretrain` build a GPT-2 where the Config says so; what it does with other Configs stays the same."""
    litgpt.pretrain.GPT = build
    litgpt.pretrain.initialize_weights = initialize_weights
