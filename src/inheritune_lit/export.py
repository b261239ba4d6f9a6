"""Export: a Hugging Face folder out of a litGPT checkpoint, reloaded in a new process and compared before it appears.

litGPT's own converter names and splits the tensors, transformers writes them. What is ours is the doubt: config.json
must describe the weights, the tokenizer must be the one that litGPT used, and the logits must be litGPT's.
"""

import contextlib
import importlib.metadata
import io
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inheritune_lit.checkpoint import (
    HF_CONFIG,
    RECEIPT,
    TOKENIZER_FILES,
    WEIGHTS,
    Weights,
    check_names_and_shapes,
    find_checkpoint,
    load_config,
    read_receipt,
    versions,
)
from inheritune_lit.commit import InheritError, sha256_file, staging, write_json
from inheritune_lit.parity import check_export
from inheritune_lit.verify import check_files

if TYPE_CHECKING:
    import torch
    from litgpt.config import Config

HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"
MAX_SHARD_SIZE = "5GB"
DTYPES = ("float32", "bfloat16", "float16")


def export(
    checkpoint: Path,
    *,
    out_dir: Path,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Write a Hugging Face folder of a checkpoint: safetensors, config, tokenizer, model card, receipt.

    The folder is opened again by transformers in a new process, and appears only if no tensor is missing or left over
    and its logits equal litGPT's. `inheritune verify` checks it again later.

    Arguments:
        checkpoint: A litGPT checkpoint folder (surgery's; final or step-* of a run), or the folder of a finished run.
        out_dir: The folder to write. It appears when it is whole.
        dtype: Convert the weights to this type. Without it they keep their own.
        overwrite: Replace OUT_DIR if it exists.
        dry_run: Check the checkpoint, say what would be written, and write nothing.
    """
    folder = find_checkpoint(Path(checkpoint))
    if dry_run:
        config, weights, _ = open_checkpoint(folder)
        target = dtype or common_dtype(weights)
        print(f"{folder}: {config.n_layer} blocks, {target}; would write {out_dir}")
        return
    receipt = export_checkpoint(folder, Path(out_dir), dtype=dtype, overwrite=overwrite)
    check = receipt["check"]
    print(
        f"Wrote {out_dir}: {check['depth']} blocks, {receipt['parameters']:,} parameters in {receipt['dtype']}. Reloaded: "
        f"logits differ from litGPT's by {check['logits']['relative_difference']:.1e} of the largest."
    )


def export_checkpoint(
    checkpoint: Path, out_dir: Path, *, dtype: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """`export` for programs: writes `out_dir` and returns its receipt.

    Raises:
        InheritError: the checkpoint or its config.json is not what it should be, or what was written is not.
    """
    checkpoint = find_checkpoint(checkpoint)
    config, weights, hf_config = open_checkpoint(checkpoint)
    dtype = dtype or common_dtype(weights)
    with staging(out_dir, overwrite=overwrite) as folder:
        _check_room(folder, weights)
        hf_config.tie_word_embeddings = is_tied(weights)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            state = convert(checkpoint, config, Path(scratch))
            write_model(cast(state, dtype), hf_config, folder)
            del state
        for name in TOKENIZER_FILES:  # generation_config.json too: it replaces the one that transformers made up
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        reloaded, check = check_export(folder, checkpoint, dtype)
        receipt = {
            "format": 1,
            "kind": "export",
            "source": {
                "name": checkpoint.resolve().name,
                "n_layer": config.n_layer,
                "fingerprint": weights.fingerprint(),
            },
            "dtype": dtype,
            "parameters": reloaded.parameters,
            "tokenizer": {"use_fast": reloaded.use_fast},
            "check": check,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": versions() | hugging_face_versions(),
        }
        receipt["files"] = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(folder.iterdir())
        }
        write_json(folder / RECEIPT, receipt)
    return receipt


def open_checkpoint(folder: Path) -> "tuple[Config, Weights, Any]":
    """A checkpoint's litGPT Config, its tensors, and its Hugging Face config, each checked against the others.

    Raises:
        InheritError: a file is missing, damaged or not what the receipt says, or config.json states another depth.
    """
    if (folder / RECEIPT).is_file():
        check_files(folder, read_receipt(folder)["files"])
    config, weights = load_config(folder), Weights(folder / WEIGHTS)
    check_names_and_shapes(weights, config, folder)
    if not (folder / RECEIPT).is_file():
        _check_bytes(weights)
    return config, weights, read_hf_config(folder, config)


def read_hf_config(folder: Path, config: "Config") -> Any:
    """transformers' config of the language model whose weights are in a folder.

    Raises:
        InheritError: config.json is missing, unknown to transformers, or states a depth that is not the weights'.
    """
    from transformers import AutoConfig

    path = folder / HF_CONFIG
    if not path.is_file():
        raise InheritError(
            f"{path} is missing, and litGPT's Config can't replace it. Copy the reference's {HF_CONFIG} there, with "
            f"its depth set to {config.n_layer}; surgery does so when the reference has one."
        )
    try:
        hf_config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError, …: whatever the mistake in the file leads to
        raise InheritError(f"transformers does not accept {path}: {type(error).__name__}: {error}") from error
    hf_config = hf_config.get_text_config(decoder=True)  # multimodal families nest the language model's
    if hf_config.num_hidden_layers != config.n_layer:
        raise InheritError(
            f"{path} says {hf_config.num_hidden_layers} blocks, the weights beside it are {config.n_layer} blocks. "
            "transformers would fill the difference with random ones. It was copied from another model: set "
            f"num_hidden_layers to {config.n_layer}, and let the recipe's tokenizer_dir name surgery's folder."
        )
    return hf_config


def common_dtype(weights: Weights) -> str:
    """The one floating-point type of all tensors.

    Raises:
        InheritError: there are several.
    """
    names = sorted({str(weights.dtype(name)).removeprefix("torch.") for name in weights})
    if len(names) > 1 or names[0] not in DTYPES:
        raise InheritError(f"{weights.path} holds {', '.join(names)}: pass --dtype, one of {', '.join(DTYPES)}.")
    return names[0]


def is_tied(weights: Weights) -> bool:
    """Whether head and token embedding are one, whatever config.json says: training may have untied or tied them."""
    import torch

    return HEAD not in weights or torch.equal(weights[HEAD], weights[EMBEDDING])


def convert(checkpoint: Path, config: "Config", scratch: Path) -> "dict[str, torch.Tensor]":
    """The checkpoint's tensors under Hugging Face's names, by litGPT's converter, mapped from a file in `scratch`.

    Raises:
        InheritError: litGPT's converter does not know the architecture,.
    """
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


def hugging_face_versions() -> dict[str, str]:
    """The versions of what wrote the folder."""
    return {name: importlib.metadata.version(name) for name in ("transformers", "safetensors", "tokenizers")}


def _check_bytes(weights: Weights) -> None:
    """Reads every tensor once, as a checkpoint without a receipt has only the CRC-32s of its zip file to go by."""
    buffer = memoryview(bytearray(max(weights.record(name).size for name in weights)))
    for name in weights:
        weights.read(name, buffer)


def _check_room(folder: Path, weights: Weights) -> None:
    needed = 2 * sum(weights.numel(name) * weights.dtype(name).itemsize for name in weights)  # litGPT's file, and ours
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InheritError(
            f"The export needs {needed:,} bytes for a while, the disk has {free:,} free. Free some space."
        )


if __name__ == "__main__":
    from inheritune_lit.__main__ import run

    run(export, "python -m inheritune_lit.export")
