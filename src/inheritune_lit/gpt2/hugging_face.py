"""GPT-2 between litGPT and Hugging Face: pure functions on (state dict, config), both ways.

litGPT's qkv holds queries, keys and values one after the other, as GPT-2's c_attn does; GPT-2's linear layers (Conv1D)
are transposed.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.gpt2.options import check, layer_indices

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

# litGPT's name inside a block → Hugging Face's
PARTS = {
    "norm_1": "ln_1",
    "attn.qkv": "attn.c_attn",
    "attn.proj": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp.fc": "mlp.c_fc",
    "mlp.proj": "mlp.c_proj",
}
OUTSIDE = tuple(f"transformer.{name}" for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"))
# config.json's key → the one value that our model computes
FIXED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def hugging_face_config(config: "Config") -> dict[str, Any]:
    """config.json of the model that `to_hugging_face` makes: every token's row is kept, the scale is in the weights."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.padded_vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.intermediate_size,
        "layer_norm_epsilon": config.norm_eps,
        "initializer_range": 0.02,
        "scale_attn_by_inverse_layer_idx": False,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        **FIXED,
    }


def to_hugging_face(
    state: Mapping[str, "torch.Tensor"], config: "Config"
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """The state dict and config.json of transformers' GPT2LMHeadModel that computes the same logits.

    Biases that the model does not have become zeros. The inverse-layer scale goes into the queries, because
    transformers (4.57.6) ignores scale_attn_by_inverse_layer_idx with SDPA; in float32 that is exact to rounding.
    Rows of the embedding beyond the vocabulary stay: without them the softmax would be another one.

    Raises:
        InheritError: the Config describes another model, or a tensor is unknown.
    """
    check(config)
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        theirs = _renamed(name, PARTS)
        found[theirs] = tensor.t() if _is_conv1d(theirs) else tensor
    scaled = config.hf_config["scale_attn_by_inverse_layer_idx"]
    for i, index in enumerate(layer_indices(config)):
        for part in PARTS.values():
            weight = found[f"transformer.h.{i}.{part}.weight"]
            found.setdefault(f"transformer.h.{i}.{part}.bias", weight.new_zeros(weight.shape[-1]))
        for kind in ("weight", "bias") if scaled else ():
            name = f"transformer.h.{i}.attn.c_attn.{kind}"
            found[name] = found[name].clone()
            found[name][..., : config.n_embd] /= index + 1
    norm = found["transformer.ln_f.weight"]
    found.setdefault("transformer.ln_f.bias", norm.new_zeros(norm.shape))
    return {name: tensor.contiguous() for name, tensor in found.items()}, hugging_face_config(config)


def from_hugging_face(
    hf_state: Mapping[str, "torch.Tensor"], hf_config: Mapping[str, Any]
) -> tuple[dict[str, "torch.Tensor"], "Config"]:
    """The litGPT state dict and Config of a GPT2LMHeadModel, such as OpenAI's gpt2 and gpt2-medium.

    Its head is the embedding. That is not padded: padding's logits are 0, and a trained GPT-2's lie tens of nats below.
    OpenAI's own files name the tensors without a prefix, and have the causal masks among them.

    Raises:
        InheritError: it is another model, or a tensor is unknown; check_names_and_shapes finds missing ones.
    """
    config, ours = _litgpt_config(hf_config), {theirs: part for part, theirs in PARTS.items()}
    state = {
        _renamed(f"transformer.{name.removeprefix('transformer.')}", ours): (
            tensor.t() if _is_conv1d(name) else tensor
        ).contiguous()
        for name, tensor in hf_state.items()
        if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    return state, config


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    match = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)\.(weight|bias)", name)
    if match and match[2] in parts:
        return f"transformer.h.{match[1]}.{parts[match[2]]}.{match[3]}"
    if name in OUTSIDE:
        return name
    raise InheritError(f"Tensor {name!r} is not one of a GPT-2's, such as transformer.h.0.{next(iter(parts))}.weight.")


def _is_conv1d(name: str) -> bool:
    return name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))


def _litgpt_config(hf_config: Mapping[str, Any]) -> "Config":
    from litgpt.config import Config

    problems = [
        f"{key} is {hf_config[key]!r}, expected {value!r}"
        for key, value in {"model_type": "gpt2", **FIXED}.items()
        if hf_config.get(key, value) != value
    ]
    width, scaled = hf_config.get("n_embd"), hf_config.get("scale_attn_by_inverse_layer_idx", False)
    names = ("n_embd", "n_head", "n_layer", "n_positions", "vocab_size")
    sizes: dict[str, Any] = {name: hf_config.get(name) for name in names}
    sizes["n_inner"] = hf_config.get("n_inner") or (4 * width if type(width) is int else None)
    problems += [f"{key} is {n!r}, expected a number" for key, n in sizes.items() if type(n) is not int or n < 1]
    if not problems and width % sizes["n_head"]:
        problems.append(f"n_embd is {width}, which {sizes['n_head']} heads can't share")
    if problems:
        raise InheritError(f"config.json describes a model that is not litGPT's GPT-2: {'; '.join(problems)}.")
    return Config(
        name="gpt2",
        hf_config={"model_type": "gpt2", "layer_norm_bias": True, "scale_attn_by_inverse_layer_idx": scaled},
        block_size=hf_config["n_positions"],
        vocab_size=hf_config["vocab_size"],
        padded_vocab_size=hf_config["vocab_size"],
        n_layer=hf_config["n_layer"],
        n_head=hf_config["n_head"],
        n_embd=width,
        intermediate_size=sizes["n_inner"],
        norm_eps=hf_config.get("layer_norm_epsilon", 1e-5),
        rotary_percentage=0.0,
        parallel_residual=False,
        gelu_approximate="tanh",
        bias=True,
    )
