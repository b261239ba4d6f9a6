"""A litGPT checkpoint as transformers has it: its tensors named by litGPT's converter, written by transformers."""

import contextlib
import importlib.metadata
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.checkpoint import HF_CONFIG
from inheritune_lit.commit import InheritError, read_json
from inheritune_lit.weights import Weights

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"
MAX_SHARD_SIZE = "5GB"


def read_hf_config(folder: Path, config: "Config") -> Any:
    """transformers' config of the language model whose weights are in a folder.

    Raises:
        InheritError: config.json is missing, unknown to transformers, or states a depth that is not the weights'.
    """
    from transformers import AutoConfig

    path = folder / HF_CONFIG
    if not path.is_file() and not gpt2.is_gpt2(config):
        raise InheritError(
            f"{path} is missing, and litGPT's Config can't replace it. Copy the reference's {HF_CONFIG} there, with "
            f"its depth set to {config.n_layer}; surgery does so when the reference has one."
        )
    stated = read_json(path, "Hugging Face config") if path.is_file() else gpt2.hugging_face_config(config)
    try:
        hf_config = AutoConfig.for_model(**stated).get_text_config(decoder=True)  # multimodal families nest it
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


def is_tied(weights: Weights) -> bool:
    """Whether head and token embedding are one, whatever config.json says: training may have untied or tied them."""
    import torch

    return HEAD not in weights or torch.equal(weights[HEAD], weights[EMBEDDING])


def convert(checkpoint: Path, config: "Config", weights: Weights, scratch: Path) -> "dict[str, torch.Tensor]":
    """The checkpoint's tensors under Hugging Face's names; litGPT's converter needs a folder `scratch` for a file.

    Raises:
        InheritError: litGPT's converter does not know the architecture.
    """
    if gpt2.is_gpt2(config):
        return gpt2.to_hugging_face(weights, config)[0]
    from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its arguments
            convert_lit_checkpoint(checkpoint.resolve(), scratch)  # absolute: it looks under checkpoints/ otherwise
    except Exception as error:
        raise InheritError(
            f"litGPT's converter can't convert {checkpoint} ({config.name}): {type(error).__name__}: {error}"
        ) from error
    return dict(Weights(scratch / "model.pth"))


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


def write_model(state: "Mapping[str, torch.Tensor]", hf_config: Any, folder: Path) -> None:
    """Has transformers write config.json, generation_config.json and safetensors (shards of up to MAX_SHARD_SIZE).

    Raises:
        InheritError: the tensors are not exactly those of the model that config.json describes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config)
    tied = set(model._tied_weights_keys or []) if hf_config.tie_word_embeddings else set()
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in tied}
    state = {name: tensor for name, tensor in state.items() if name not in tied}
    problems = [f"no {name} among the weights" for name in expected.keys() - state.keys()]
    problems += [f"no {name} in the model" for name in state.keys() - expected.keys()]
    problems += [
        f"{name} is {tuple(state[name].shape)} in the weights, {tuple(expected[name])} in the model"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name]
    ]
    if problems:
        raise InheritError(
            f"{HF_CONFIG} ({hf_config.model_type}) does not describe the weights: {'; '.join(sorted(problems)[:4])}"
            f"{f'; and {len(problems) - 4} more' if len(problems) > 4 else ''}. Is it the reference's own?"
        )
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner may read


def hugging_face_versions() -> dict[str, str]:
    """The versions of what wrote the folder."""
    return {name: importlib.metadata.version(name) for name in ("transformers", "safetensors", "tokenizers")}
