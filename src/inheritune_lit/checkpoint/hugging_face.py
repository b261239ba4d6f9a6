"""A litGPT checkpoint as transformers has it: its tensors named by litGPT's converter, written by transformers."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError, first_few
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.folder import HF_CONFIG, check_per_layer, expected_shapes, mismatches, refuse_code
from inheritune_lit.checkpoint.layers import per_layer_lists, with_old_rope
from inheritune_lit.checkpoint.weights import Weights, not_whole

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"
INDEX = "model.safetensors.index.json"
MAX_SHARD_SIZE = "5GB"


def read_hf_config(folder: Path, config: "Config") -> Any:
    """transformers' config of the language model whose weights are in a folder.

    Raises:
        InheritError: config.json is missing or could make transformers run code, or what as_hf_config raises.
    """
    refuse_code(folder)
    path = folder / HF_CONFIG
    if not path.is_file() and not gpt2.is_gpt2(config):
        raise InheritError(
            f"{path} is missing, and litGPT's Config can't replace it. Copy the reference's {HF_CONFIG} there, with "
            f"its depth set to {config.n_layer}; surgery does so when the reference has one."
        )
    stated = read_json(path, "Hugging Face config") if path.is_file() else gpt2.hugging_face_config(config)
    return as_hf_config(stated, config, path)


def as_hf_config(stated: Mapping[str, Any], config: "Config", path: Path) -> Any:
    """transformers' config of the language model that the content of a config.json describes.

    Raises:
        InheritError: it is unknown to transformers, or says something of another number of blocks than `config`.
    """
    from transformers import AutoConfig

    inner = language_of(stated)
    language = with_old_rope(inner)
    depth = language.get("num_hidden_layers", language.get("n_layer", config.n_layer))
    check_per_layer(per_layer_lists(language), depth, path)
    stated = language if inner is stated else {**stated, "text_config": language}
    try:
        hf_config = AutoConfig.for_model(**stated).get_text_config(decoder=True)
    except Exception as error:  # TypeError, ValueError, KeyError, …: whatever the mistake in the file leads to
        raise InheritError(f"transformers does not accept {path}: {type(error).__name__}: {error}") from error
    if hf_config.num_hidden_layers != config.n_layer:
        raise InheritError(
            f"{path} says {hf_config.num_hidden_layers} blocks, the weights beside it are {config.n_layer} blocks. "
            "transformers would fill the difference with random ones. It was copied from another model: set "
            f"num_hidden_layers to {config.n_layer}, and let the recipe's tokenizer_dir name surgery's folder."
        )
    if gpt2.is_gpt2(config):  # what the exported weights mean, as the inverse-layer scale went into them
        hf_config.update(gpt2.hugging_face_config(config))
    return hf_config


def language_of(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config.json says of the language model, which multimodal families nest."""
    inner = stated.get("text_config")
    return inner if isinstance(inner, dict) else stated


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads a model's weights from: whatever else lies beside them is no part of it.

    safetensors come first: they can't hold code.

    Raises:
        InheritError: there are none, an index names one that is not there, or two of them hold the same tensor.
    """
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (folder / whole).is_file():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if not index.is_file():
            continue
        named = read_json(index, "index of weights", ("weight_map",))["weight_map"]
        names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing or not names:
            raise InheritError(f"{index} names files that are not in {folder}: {', '.join(missing) or 'none at all'}.")
        if whole == "model.safetensors":
            check_index(index, named, {name: safetensors_header(folder / name) for name in names})
        return [folder / name for name in names]
    shards = sorted(path.name for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    there = f"; {', '.join(shards[:3])} is no such file, and no index names it" if shards else ""
    raise InheritError(
        f"{folder} holds no Hugging Face weights: neither model.safetensors nor pytorch_model.bin, nor the "
        f"index of either{there}."
    )


def check_index(index: Path, named: Mapping[str, str], headers: Mapping[str, Collection[str]]) -> None:
    """Whether an index is what its files hold: else it depends on the reader which tensors are taken.

    Args:
        index: For messages.
        named: Its weight_map, tensor → file.
        headers: File → the tensors that it holds.

    Raises:
        InheritError: naming the tensors.
    """
    held = [(name, file) for file, names in headers.items() for name in names]
    found = dict(held)
    if twice := next((pair for pair in held if found[pair[0]] != pair[1]), None):
        raise InheritError(
            f"{twice[0]} is in {index.parent / twice[1]} and in another file of its index. Fetch the model again."
        )
    wrong = [f"{name} in {file}, which has none" for name, file in named.items() if found.get(name) != file]
    wrong += [f"nothing of {name}, which is in {file}" for name, file in held if name not in named]
    if wrong:
        raise InheritError(f"{index} names {'; '.join(first_few(wrong))}. Fetch the model again.")


def safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file says of its tensors, in the order of their bytes: dtype, shape and data_offsets.

    Raises:
        Unreadable: it can't be read now.
        InheritError: it is not whole.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"), path.open("rb") as file:  # which refuses what is not whole
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (SafetensorError, OSError) as error:
        raise not_whole(path, error, f"{path} is not whole: {error}. Fetch it again.") from error
    header.pop("__metadata__", None)
    return dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))


def is_tied(weights: Weights) -> bool:
    """Whether head and token embedding are one, whatever config.json says: training may have untied or tied them."""
    import torch

    return HEAD not in weights or torch.equal(weights[HEAD], weights[EMBEDDING])


def convert(
    weights: "Mapping[str, torch.Tensor]", config: "Config", hf_config: Any, folder: Path
) -> "dict[str, torch.Tensor]":
    """The tensors of a checkpoint in `folder` under Hugging Face's names, given by litGPT's converter.

    Which of litGPT's functions: as config.json says what the model is. litGPT's command goes by the checkpoint's name,
    which makes a Gemma 2 of Gemma-2b, and leaves out the head of families that are published tied.

    Raises:
        InheritError: litGPT's converter does not know the architecture.
    """
    from litgpt.scripts import convert_lit_checkpoint as litgpt

    if gpt2.is_gpt2(config):
        return gpt2.to_hugging_face(weights, config)[0]
    family = hf_config.model_type
    kinds = {"gemma2": "gemma_2", "gemma3_text": "gemma_3", "phi3": "phi"}
    kinds |= {"qwen2": "qwen_2_5", "qwen3": "qwen_3", "qwen3_moe": "qwen_3"}
    copy = getattr(litgpt, f"copy_weights_{kinds.get(family, family)}", litgpt.copy_weights_llama)
    options = {"untie_weights": False} if family in ("gemma2", "gemma3_text") else {}
    # within these two the name still decides; "Phi-4", in capitals, would lose its head
    names = {"phi": "phi-2", "phi3": "phi-4", "falcon": "falcon-7b" if config.shared_attention_norm else "falcon-40b"}
    if family == "olmo2":  # its map calls this norm norm_2, which no OLMo 2 has
        weights = {name.replace(".post_attention_norm.", ".norm_2."): tensor for name, tensor in weights.items()}
    state: dict[str, torch.Tensor] = {}
    try:
        copy(replace(config, name=names.get(family, config.name)), state, weights, **options)
    except Exception as error:
        raise InheritError(
            f"litGPT's converter can't convert {folder} ({config.name}) into a {family}: {type(error).__name__}: "
            f"{error}. It needs the reference's own {HF_CONFIG}, of a family that litGPT knows."
        ) from error
    return state


def check_describes(hf_config: Any, config: "Config", folder: Path) -> None:
    """Whether the config.json in `folder` describes the model of a litGPT Config, tensor by tensor: no weights needed.

    Raises:
        InheritError: litGPT's converter does not know the architecture, or names or shapes of tensors differ.
    """
    import torch

    shapes = expected_shapes(config)
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    _empty_model(hf_config, convert(weights, config, hf_config, folder))


def cast(state: "Mapping[str, torch.Tensor]", dtype: str) -> "dict[str, torch.Tensor]":
    """Every tensor in `dtype`.

    Raises:
        InheritError: a value is outside of what `dtype` can hold, or was no finite number before.
    """
    import torch

    converted = {name: tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in state.items()}
    for name, tensor in converted.items():
        if not torch.isfinite(tensor).all():
            raise InheritError(f"{name} holds NaN or infinity in {dtype}. Choose --dtype bfloat16 or float32.")
    return converted


def write_model(state: "Mapping[str, torch.Tensor]", hf_config: Any, folder: Path, max_shard_size: str) -> None:
    """Has transformers write config.json, generation_config.json and safetensors (shards of up to `max_shard_size`).

    Raises:
        InheritError: the tensors are not exactly those of the model that config.json describes.
    """
    model = _empty_model(hf_config, state)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner may read


def _empty_model(hf_config: Any, state: "Mapping[str, torch.Tensor]") -> Any:
    """The model of a config, on the meta device, which holds exactly these tensors.

    Raises:
        InheritError: it holds others, or tensors of other shapes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(hf_config, trust_remote_code=False)
    except Exception as error:  # whatever sizes that do not fit together lead to
        raise InheritError(f"transformers can't build {HF_CONFIG}'s model: {type(error).__name__}: {error}") from error
    tied = set(model._tied_weights_keys or []) if hf_config.tie_word_embeddings else set()
    expected, found = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in tied}
        for tensors in (model.state_dict(), state)
    )
    if problems := mismatches(expected, found):
        raise InheritError(
            f"{HF_CONFIG} ({hf_config.model_type}) does not describe the weights: {'; '.join(first_few(problems))}. "
            "Is it the reference's own?"
        )
    return model
