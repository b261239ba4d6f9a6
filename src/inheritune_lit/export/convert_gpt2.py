"""`inheritune convert-gpt2`: a GPT-2 from Hugging Face as a litGPT checkpoint folder; litGPT's converters know none."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, sha256_file, write_json
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.checkpoint.folder import (
    HF_CONFIG,
    WEIGHTS,
    check_names_and_shapes,
    copy_tokenizer,
    refuse_code,
)
from inheritune_lit.checkpoint.hugging_face import weight_files
from inheritune_lit.checkpoint.receipt import inputs_of, is_done, write_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.gpt2.hugging_face import from_hugging_face, hugging_face_config

if TYPE_CHECKING:
    import torch


def convert_gpt2(hf_dir: Path, *, out_dir: Path, overwrite: bool = False) -> None:
    """Turn a GPT-2 from Hugging Face, such as OpenAI's gpt2-medium, into a litGPT checkpoint folder.

    `inheritune surgery` and `litgpt pretrain` take it from there. The weights keep their type.

    Args:
        hf_dir: A folder with config.json and model.safetensors (or pytorch_model.bin), and tokenizer files.
        out_dir: The folder to write. It appears when it is whole.
        overwrite: Replace OUT_DIR if it exists.
    """
    import torch
    from litgpt.utils import save_config

    hf_dir = Path(hf_dir)
    refuse_to_replace(Path(out_dir), hf_dir)
    refuse_code(hf_dir)  # it would be passed on
    source_config = read_json(hf_dir / HF_CONFIG, "Hugging Face config")
    files = weight_files(hf_dir)
    sha256 = {path.name: sha256_file(path) for path in files}
    inputs = {**inputs_of(hf_dir, None), **sha256}
    if not overwrite and is_done(Path(out_dir), "conversion", {"inputs": inputs}):
        return
    state, config = from_hugging_face(_load(files), source_config)
    with staging(Path(out_dir), overwrite=overwrite) as folder:
        torch.save(state, folder / WEIGHTS)
        check_names_and_shapes(Weights(folder / WEIGHTS), config, folder)
        save_config(config, folder)
        write_json(folder / HF_CONFIG, source_config | hugging_face_config(config))  # what an export will be
        copy_tokenizer(hf_dir, folder)
        source = {"name": hf_dir.resolve().name, "sha256": sha256}
        parameters = sum(tensor.numel() for tensor in state.values())
        write_receipt(folder, "conversion", {"source": source, "inputs": inputs, "parameters": parameters})
    print(f"Wrote {out_dir}: {config.n_layer} blocks, {parameters:,} parameters")


def _load(files: list[Path]) -> dict[str, "torch.Tensor"]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in files:
        try:
            part = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        except pickle.UnpicklingError as error:
            raise InheritError(f"{path} was not opened: it holds more than tensors, which could run code.") from error
        except (SafetensorError, RuntimeError, OSError, EOFError) as error:
            raise InheritError(f"{path} is not whole: {error}. Fetch it again.") from error
        if not isinstance(part, dict) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in part.items()
        ):
            raise InheritError(f"{path} holds no model: expected names and their tensors, got a {type(part).__name__}.")
        if twice := state.keys() & part.keys():
            raise InheritError(f"{min(twice)} is in {path} and in another file of its index. Fetch the model again.")
        state |= part
    return state
