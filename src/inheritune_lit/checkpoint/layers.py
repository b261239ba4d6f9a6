"""Which blocks: the little language of `--layers`, and what a checkpoint's names and Configs are of these blocks alone.

Pure functions. Importing this module imports neither torch nor litGPT.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import HF_CONFIG, PER_LAYER, check_per_layer

if TYPE_CHECKING:
    from litgpt.config import Config

BLOCK = "transformer.h."

_FORMS = "13 (the first 13), 0-12 (inclusive), 0,2,4 (these), ::2 (every second), or a list such as 0-10,22-25"


def parse_layers(layers: str, n_layer: int) -> list[int]:
    """Block numbers of a source with `n_layer` blocks, in the order given.

    `13` alone is the first 13 blocks; inside a list a number is that block. A slice `start:stop:step` is Python's.

    Raises:
        InheritError: not one of these forms, empty, out of range, or a block named twice.
    """
    layers = str(layers).strip()
    if re.fullmatch(r"\d+", layers):
        count = int(layers)
        if not 1 <= count <= n_layer:
            raise _error(layers, n_layer, f"it asks for the first {count}")
        return list(range(count))
    blocks = [block for part in layers.split(",") for block in _parse_part(part.strip(), layers, n_layer)]
    if repeated := sorted({block for block in blocks if blocks.count(block) > 1}):
        raise _error(layers, n_layer, f"it names block {', '.join(map(str, repeated))} more than once")
    if not blocks:
        raise _error(layers, n_layer, "it names no block")
    return blocks


def _parse_part(part: str, layers: str, n_layer: int) -> list[int]:
    if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise _error(layers, n_layer, f"the range {part} runs backwards")
        if last >= n_layer:
            raise _error(layers, n_layer, f"there is no block {last}")
        return list(range(first, last + 1))
    if match := re.fullmatch(r"(\d*):(\d*)(?::(\d*))?", part):
        start, stop, step = (int(number) if number else None for number in match.groups())
        if step == 0:
            raise _error(layers, n_layer, "a stride of 0 goes nowhere")
        if max(start or 0, stop or 0) > n_layer:
            raise _error(layers, n_layer, f"{part} goes beyond the last block")
        return list(range(n_layer))[start:stop:step]
    raise _error(layers, n_layer, f"{part!r} is none of its forms: {_FORMS}")


def _error(layers: str, n_layer: int, problem: str) -> InheritError:
    return InheritError(f"--layers {layers}: {problem}. The source has {n_layer} blocks, numbered 0 to {n_layer - 1}.")


def ranges(blocks: Sequence[int]) -> str:
    """[0, 1, 2, 5] → 0-2,5"""
    runs = groupby(enumerate(blocks), lambda numbered: numbered[1] - numbered[0])
    parts = [[block for _, block in run] for _, run in runs]
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def layers_argument(blocks: Sequence[int]) -> str:
    """What `--layers` says for these blocks: the inverse of parse_layers."""
    if [*blocks] == [*range(len(blocks))]:
        return str(len(blocks))
    text = ranges(blocks)
    return f"{text}-{text}" if text.isdecimal() else text  # 5 alone would be the first five


def inherited_names(names: Iterable[str], blocks: Sequence[int]) -> dict[str, str]:
    """Target tensor name → source tensor name: all that is not in a block, and the chosen blocks renumbered.

    A block that is chosen more than once gives its tensors to each of its places.
    """
    kept = {}
    for name in names:
        if not name.startswith(BLOCK):
            kept[name] = name
            continue
        number, rest = name.removeprefix(BLOCK).split(".", 1)
        kept |= {f"{BLOCK}{i}.{rest}": name for i, block in enumerate(blocks) if block == int(number)}
    return kept


def slice_config(config: "Config", blocks: Sequence[int]) -> "Config":
    """The Config of the chosen blocks: what it says per layer is sliced with them.

    Raises:
        InheritError: dense and mixture-of-experts blocks would be mixed in an order that litGPT can't describe.
    """
    per_layer = {
        name: [getattr(config, name)[block] for block in blocks]
        for name in PER_LAYER
        if getattr(config, name) is not None
    }
    dense = config.first_k_dense_replace
    if dense is not None:
        # litGPT: blocks below this number have a dense MLP, those from it on have experts
        kept_dense = sum(block < dense for block in blocks)
        if any(block >= dense for block in blocks[:kept_dense]):
            raise InheritError(
                f"These blocks put a mixture-of-experts block before a dense one (blocks 0-{dense - 1} of the source "
                "are dense), which litGPT's first_k_dense_replace can't describe. Choose each once, in ascending order."
            )
        dense = kept_dense
    options = gpt2.slice_options(config, blocks) if gpt2.is_gpt2(config) else config.hf_config
    return replace(config, n_layer=len(blocks), first_k_dense_replace=dense, hf_config=options, **per_layer)


def slice_hf_config(hf_config: Mapping[str, Any], config: "Config", blocks: Sequence[int]) -> dict[str, Any]:
    """Hugging Face's config.json of the chosen blocks, as transformers 4 reads it.

    Without the true depth, transformers would fill the missing blocks with random weights and only warn.

    Raises:
        InheritError: the depth it states, or that of a list with an entry for each block, is not the source's.
    """
    if isinstance(hf_config.get("text_config"), dict):  # multimodal families nest the language model's
        return {**hf_config, "text_config": slice_hf_config(hf_config["text_config"], config, blocks)}
    sliced = with_old_rope(hf_config)
    depth_keys = [key for key in ("num_hidden_layers", "n_layer", "num_layers") if key in sliced]
    if not depth_keys or any(sliced[key] != config.n_layer for key in depth_keys):
        found = {key: sliced[key] for key in depth_keys}
        raise InheritError(f"The source's {HF_CONFIG} states depth {found or 'nowhere'}, expected {config.n_layer}.")
    sliced |= dict.fromkeys(depth_keys, len(blocks))
    lists = per_layer_lists(hf_config)
    check_per_layer(lists, config.n_layer, Path(f"The source's {HF_CONFIG}"))
    sliced |= {key: [value[block] for block in blocks] for key, value in lists.items()}
    windows = config.sliding_window_indices or []
    if "layer_types" not in sliced and len(set(windows)) > 1:
        # a period ("every sixth block is global") does not survive a cut: say it block by block
        sliced["layer_types"] = [("full", "sliding")[windows[block]] + "_attention" for block in blocks]
    for key in _BLOCK_NUMBERS:
        if isinstance(sliced.get(key), list):
            sliced[key] = [i for i, block in enumerate(blocks) if block in hf_config[key]]
    for key in ("first_k_dense_replace", "max_window_layers"):
        if sliced.get(key) is not None:
            sliced[key] = sum(block < hf_config[key] for block in blocks)
    return sliced


_BLOCK_NUMBERS = ("mlp_only_layers", "moe_layers")


def per_layer_lists(hf_config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists in a language model's config.json that have an entry for each block: layer_types and its kin."""
    return {
        key: value
        for key, value in hf_config.items()
        if isinstance(value, list) and key not in _BLOCK_NUMBERS and re.search(r"layer|_types$|_pattern$", key)
    }


def with_old_rope(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """A language model's config.json with transformers 4's keys where transformers 5 has `rope_parameters`.

    Both read the old ones; transformers 4 takes the new one for nothing, and its default base for the model's.
    """
    old = dict(hf_config)
    rope = old.pop("rope_parameters", None)
    if not rope:
        return old
    kinds = {kind: value for kind, value in rope.items() if isinstance(value, dict)}  # Gemma 3: for each kind of block
    local, rope = kinds.get("sliding_attention"), kinds.get("full_attention", next(iter(kinds.values()), rope))
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    names = {"rope_theta": "rope_theta", "partial_rotary_factor": "partial_rotary_factor"}
    if old.get("model_type") == "gpt_neox":
        names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    old |= {name: rope[key] for key, name in names.items() if key in rope}
    if local and len(kinds) > 1:
        old["rope_local_base_freq"] = local.get("rope_theta")
    kind = scaling.get("rope_type", "default")
    if kind == "longrope":  # Phi-3: three keys, the fourth beside them
        old["original_max_position_embeddings"] = scaling.get("original_max_position_embeddings")
        scaling = {"type": kind, **{key: scaling.get(key) for key in ("short_factor", "long_factor")}}
    return old if kind == "default" else old | {"rope_scaling": scaling}
