"""Checkpoints with tokenizers that transformers knows, ready to be exported."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from helpers.models import make_checkpoint, write_bpe

WORDS = {"vocab_size": 600, "padded_vocab_size": 640}

LLAMA = {
    **{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4},
    **{"intermediate_size": 48, "vocab_size": 640, "max_position_embeddings": 32, "rms_norm_eps": 1e-6},
    **{"tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1},
}


def make_reference(folder: Path, architecture: str, hf_config: dict[str, Any], **overrides: Any) -> Path:
    """A checkpoint whose tokenizer and config.json are whole."""
    make_checkpoint(folder, architecture, **WORDS | overrides)
    depth = yaml.safe_load((folder / "model_config.yaml").read_text())["n_layer"]
    (folder / "config.json").write_text(json.dumps(hf_config | {"num_hidden_layers": depth}))
    tokenizer = write_bpe(folder / "tokenizer")
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)
    shutil.rmtree(tokenizer)
    return folder
