"""`inheritune convert-gpt2`: a GPT-2 from Hugging Face as a litGPT checkpoint folder; litGPT's converters know none."""

from pathlib import Path

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
from inheritune_lit.export.reload import open_model
from inheritune_lit.gpt2.hugging_face import from_hugging_face, hugging_face_config


def convert_gpt2(hf_dir: Path, *, out_dir: Path, overwrite: bool = False) -> None:
    """Turn a GPT-2 from Hugging Face, such as OpenAI's gpt2-medium, into a litGPT checkpoint folder.

    `inheritune surgery` and `litgpt pretrain` take it from there. The weights get the type that config.json states, or
    keep their own.

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
    sha256 = {path.name: sha256_file(path) for path in weight_files(hf_dir)}
    inputs = {**inputs_of(hf_dir, None), **sha256}
    if not overwrite and is_done(Path(out_dir), "conversion", {"inputs": inputs}):
        return
    model = open_model(hf_dir, "auto")
    state, config = from_hugging_face(model.state_dict(), model.config.to_dict())
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
