"""What a Config says of a GPT-2: plain values, no torch.

    hf_config:
      model_type: gpt2
      layer_norm_bias: false
      scale_attn_by_inverse_layer_idx: true
      layer_idx: [0, 2, 4]   # only if a block's scale is not that of its own position

litGPT's parser rejects new fields of Config but keeps what `hf_config` holds, and saves it with every checkpoint.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    from litgpt.config import Config

# litGPT's defaults for these are GPT-NeoX's: a recipe that leaves one out would train another model without a word
FIXED = {
    "rotary_percentage": 0.0,
    "norm_class_name": "LayerNorm",
    "mlp_class_name": "GptNeoxMLP",
    "gelu_approximate": "tanh",
    "parallel_residual": False,
    "lm_head_bias": False,
    "attn_bias": False,
    "norm_qk": False,
    "scale_embeddings": False,
    "sliding_window_size": None,
    "attention_scores_scalar": None,
    "attention_logit_softcapping": None,
    "final_logit_softcapping": None,
}
OPTIONS = ("layer_norm_bias", "scale_attn_by_inverse_layer_idx")


def is_gpt2(config: "Config") -> bool:
    return (config.hf_config or {}).get("model_type") == "gpt2"


def layer_indices(config: "Config") -> list[int]:
    """Per block, the layer index whose attention scale it uses: its own position, unless it was cut from elsewhere."""
    return list(config.hf_config.get("layer_idx") or range(config.n_layer))


def slice_options(config: "Config", blocks: Sequence[int]) -> dict[str, Any]:
    """`hf_config` of the chosen blocks, each of which keeps the attention scale that it was trained with."""
    sliced = {key: value for key, value in config.hf_config.items() if key != "layer_idx"}
    kept = [layer_indices(config)[block] for block in blocks]
    if sliced["scale_attn_by_inverse_layer_idx"] and kept != list(range(len(kept))):
        sliced["layer_idx"] = kept
    return sliced


def check(config: "Config") -> None:
    """Refuses a Config whose model would not be a GPT-2.

    Raises:
        InheritError: naming every setting that is wrong or left out.
    """
    problems = [
        f"{name} is {getattr(config, name)!r}, expected {value!r}"
        for name, value in FIXED.items()
        if getattr(config, name) != value
    ]
    if config.n_query_groups != config.n_head:
        problems.append(f"n_query_groups is {config.n_query_groups}, expected n_head's {config.n_head}")
    problems += [
        f"hf_config.{name} is {config.hf_config.get(name)!r}, expected true or false"
        for name in OPTIONS
        if not isinstance(config.hf_config.get(name), bool)
    ]
    if len(indices := layer_indices(config)) != config.n_layer or min(indices) < 0:
        problems.append(f"hf_config.layer_idx is {indices}, expected {config.n_layer} numbers from 0 on, one per block")
    if problems:
        raise InheritError(
            f"The model_config of {config.name or 'a GPT-2'} is not a GPT-2's: {'; '.join(problems)}. Mend these, or "
            "remove hf_config.model_type: gpt2 if another model is meant."
        )
