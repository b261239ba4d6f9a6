"""GPT-2s of transformers and ours, in small, on the same tokens."""

from collections.abc import Iterable
from typing import Any

import torch
from litgpt.config import Config
from torch import Tensor

import inheritune_lit.data.tokens  # noqa: F401  # places GPT-2 in litgpt.pretrain
from helpers.models import ARCHITECTURES

BOTH = ("linear", "norm")

TOKENS = torch.randint(0, 64, (3, 24), generator=torch.Generator().manual_seed(1))


def config(**settings: Any) -> Config:
    name, small, _ = ARCHITECTURES["gpt2"]
    return Config.from_name(name, **{**small, "n_layer": 3, **settings})


def apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def hugging_face(biases: Iterable[str] = BOTH, *, scale: bool, dtype: torch.dtype = torch.float64) -> Any:
    """A random GPT2LMHeadModel whose biases are zero but for the given kinds."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_head": 4, "n_layer": 3, "vocab_size": 64, "n_positions": 32}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    settings = GPT2Config(**shape, **special, scale_attn_by_inverse_layer_idx=scale, attn_implementation="eager")
    model = GPT2LMHeadModel(settings).to(dtype).eval()
    for name, parameter in model.named_parameters():
        kind = "norm" if ".ln_" in name else "linear"
        kept = 0.0 if name.endswith(".bias") and kind not in biases else 0.2
        parameter.data = torch.randn_like(parameter) * kept + (name.endswith("weight") and kind == "norm")
    return model
