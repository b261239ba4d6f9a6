"""A Llama whose config.json says all that litGPT's Config does: it fits, and transformers need not be asked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litgpt.config import Config

# What of a litGPT Config may be as it likes: with any of it, the tensors are those that a Llama of these sizes has
SIZES = (
    *("name", "hf_config", "n_layer", "n_embd", "n_head", "n_query_groups", "head_size", "intermediate_size"),
    *("vocab_size", "padded_vocab_size", "padding_multiple", "block_size", "norm_eps", "rope_base"),
)
# What of config.json decides about no tensor
SILENT = {
    *("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "bos_token_id", "eos_token_id"),
    *("max_position_embeddings", "pretraining_tp", "initializer_range", "rms_norm_eps", "rope_theta", "use_cache"),
    *("attention_dropout", "tie_word_embeddings"),
}


def is_plain_llama(stated: Mapping[str, Any], config: "Config") -> bool:
    """Whether a config.json is a Llama's that has the sizes of a litGPT Config, and nothing that is not known here.

    False says only that transformers has to be asked.
    """
    expected = {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_query_groups,
        "head_dim": config.head_size,
        "vocab_size": config.padded_vocab_size,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
    }
    assumed = {"hidden_act": "silu", "num_key_value_heads": stated.get("num_attention_heads"), "attention_bias": False}
    assumed |= {"head_dim": config.n_embd // config.n_head, "mlp_bias": False, "rope_scaling": None}
    rest = {key: value for key, value in stated.items() if key not in expected}
    padding = rest.pop("pad_token_id", None)
    llama = type(config).from_name("open_llama_3b")
    return (
        {**assumed, **{key: stated[key] for key in expected if key in stated}} == expected
        and replace(llama, **{key: getattr(config, key) for key in SIZES}) == config
        and (padding is None or (type(padding) is int and 0 <= padding < config.padded_vocab_size))
        and rest.keys() <= SILENT
    )
