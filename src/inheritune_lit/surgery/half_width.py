"""Half the width: the first half of the channels, heads, query groups and MLP units. Heads stay whole.

Pure functions. Importing this module imports neither torch nor litGPT.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.surgery.origins import Cut, Origin

if TYPE_CHECKING:
    from litgpt.config import Config

WIDTHS = ("n_embd", "n_head", "n_query_groups", "intermediate_size", "moe_intermediate_size")
HF_WIDTHS = (
    *("hidden_size", "num_attention_heads", "num_key_value_heads", "num_kv_heads", "intermediate_size"),
    *("ffn_hidden_size", "moe_intermediate_size", "n_embd", "n_head", "n_inner"),
)


def halved_config(config: "Config") -> "Config":
    """litGPT's Config at half the width.

    Raises:
        InheritError: a width is odd, or attention is latent.
    """
    widths = {key: getattr(config, key) for key in WIDTHS if getattr(config, key) is not None}
    odd = {key: value for key, value in widths.items() if value % 2}
    if odd or config.latent_attention is not None:
        what = ", ".join(f"{key} {value}" for key, value in odd.items()) or "latent attention"
        raise InheritError(f"--start half-width can't halve {config.name}: {what}. Heads and query groups stay whole.")
    return replace(config, **{key: value // 2 for key, value in widths.items()})


def halved_hf_config(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """Hugging Face's config.json at half the width."""
    halved = {key: value // 2 for key, value in hf_config.items() if key in HF_WIDTHS and value is not None}
    if isinstance(hf_config.get("text_config"), dict):
        halved["text_config"] = halved_hf_config(hf_config["text_config"])
    return {**hf_config, **halved}


def halved_origins(
    origins: Mapping[str, Origin], shapes: Mapping[str, tuple[int, ...]], config: "Config"
) -> dict[str, Origin]:
    """The same origins, cut to the first half of the channels, heads, query groups and MLP units.

    Args:
        origins: Target tensor name → where it comes from, whole.
        shapes: Target tensor name → its shape in the half-width model.
        config: The half-width model's.
    """
    q, kv = config.n_head * config.head_size, config.n_query_groups * config.head_size
    # rows of qkv: all heads' queries, then all groups' keys, then their values
    qkv_rows = ((0, q), (2 * q, 2 * q + kv), (2 * q + 2 * kv, 2 * q + 3 * kv))

    def cut(target: str) -> Cut:
        whole: Cut = tuple(((0, size),) for size in shapes[target])
        return (qkv_rows, *whole[1:]) if ".attn.qkv." in target else whole

    return {target: replace(origin, cut=cut(target)) for target, origin in origins.items()}
