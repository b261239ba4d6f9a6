"""A checkpoint folder opened, litGPT's or Hugging Face's: its Config, and its tensors under litGPT's names."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.folder import HF_CONFIG, WEIGHTS, check_names_and_shapes, is_hugging_face, load_config
from inheritune_lit.checkpoint.hub import Headers, model_name
from inheritune_lit.checkpoint.hugging_face import language_of
from inheritune_lit.checkpoint.layers import with_old_rope
from inheritune_lit.checkpoint.safetensors_folder import Safetensors
from inheritune_lit.checkpoint.weights import Weights

if TYPE_CHECKING:
    from litgpt.config import Config

STATED = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_query_groups",
    "head_dim": "head_size",
    **dict.fromkeys(("rope_theta", "rotary_emb_base"), "rope_base"),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), "norm_eps"),
}
"""What config.json says that no tensor's shape tells → litGPT's Config"""


def open_weights(folder: Path, headers: Headers | None = None) -> "tuple[Config, Weights]":
    """litGPT's Config and the tensors of a checkpoint folder, compared with each other; reads no weights.

    Args:
        folder: litGPT's or Hugging Face's.
        headers: Of the hub's shards, which are not there as yet.

    Raises:
        InheritError: it is neither a whole litGPT checkpoint nor a Hugging Face folder with the safetensors of a model
            that litGPT knows, or it could make transformers run code.
    """
    config = load_config(folder)
    weights = Safetensors(folder, config, headers) if is_hugging_face(folder) else Weights(folder / WEIGHTS)
    check_names_and_shapes(weights, config, folder)
    return config, weights


def named_config(folder: Path) -> "Config":
    """litGPT's Config of a Hugging Face folder: a GPT-2's is in config.json, the others go by the folder's name.

    Raises:
        InheritError: litGPT knows no such name, or config.json says otherwise.
    """
    from litgpt.config import Config

    path, name = folder / HF_CONFIG, model_name(folder)
    stated = read_json(path, "Hugging Face config")
    if stated.get("model_type") == "gpt2":
        return gpt2.from_hugging_face({}, stated)[1]
    try:
        config = Config.from_name(name)
    except ValueError as error:
        raise InheritError(
            f"litGPT knows no model called {name!r}, and {path} does not say all that its Config does. Call the "
            "folder, or a link to it, what litGPT calls the model (`litgpt download list`), such as open_llama_3b."
        ) from error
    language = with_old_rope(language_of(stated))
    wrong = [
        f"{key} is {language[key]}, litGPT's {ours} {getattr(config, ours)}"
        for key, ours in STATED.items()
        if language.get(key) is not None and not _is_close(language[key], getattr(config, ours))
    ]
    if wrong:
        raise InheritError(
            f"{path} is not that of litGPT's {name}: {'; '.join(wrong)}. Call the folder, or a link to it, what litGPT "
            "calls the model (`litgpt download list`)."
        )
    return config


def _is_close(stated: Any, ours: float) -> bool:
    """Whether two numbers are one, also where it has been through float32."""
    return type(stated) in (int, float) and math.isclose(stated, ours, rel_tol=1e-4)
