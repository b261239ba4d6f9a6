"""A litGPT checkpoint folder: found, checked against its config, and described by a receipt.

The folder is litGPT's (lit_model.pth, model_config.yaml, tokenizer files) plus Hugging Face's config.json, which tells
the true depth, and `inheritance.json`, the receipt: what came from where and how, with the SHA-256 of every file.
"""

import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError, first_few
from inheritune_lit.base.files import read_json, write_json
from inheritune_lit.base.folders import natural
from inheritune_lit.base.piecewise import by_pieces
from inheritune_lit.checkpoint.weights import Weights

if TYPE_CHECKING:
    from litgpt.config import Config

WEIGHTS = "lit_model.pth"
MODEL_CONFIG = "model_config.yaml"
PER_LAYER = ("sliding_window_indices", "rope_indices")
"""What model_config.yaml says of each block"""
HF_CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
RECEIPT = "inheritance.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copies a tokenizer's files, with its settings as transformers 4 reads them too.

    transformers 5 writes a class that transformers 4 does not have, and a list where it wants a dictionary.

    Raises:
        InheritError: tokenizer_config.json is no JSON object.
    """
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = read_json(path, "tokenizer's settings") if path.is_file() else {}
    mended = dict(settings)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        mended["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        mended["additional_special_tokens"] = mended.pop("extra_special_tokens")
    if mended != settings:
        write_json(path, mended)


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder holds a model of Hugging Face's, and not litGPT's."""
    weights = (path for pattern in ("*.safetensors*", "*.bin*") for path in folder.glob(pattern))
    return not (folder / WEIGHTS).is_file() and (folder / HF_CONFIG).is_file() and any(weights)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that a path means: itself, or a finished run's `model/` or else `final/`.

    Raises:
        InheritError: there is no checkpoint in it; the message names those of a run that did not end.
    """
    for folder in (path, path / "model", path / "final"):
        if (folder / WEIGHTS).is_file() or is_hugging_face(folder):
            return folder
    steps = sorted(folder.parent.name for folder in path.glob(f"step-*/{WEIGHTS}"))
    hint = (
        f"This run has not ended; name one of its checkpoints: {', '.join(steps[-3:])}." if steps else "Check the path."
    )
    raise InheritError(f"{path} holds no litGPT checkpoint: no {WEIGHTS} in it, in model/ or in final/. {hint}")


def load_config(folder: Path) -> "Config":
    """litGPT's Config from a folder's model_config.yaml; without that, the one of a Hugging Face folder.

    Raises:
        InheritError: the file is missing or litGPT does not accept it, or litGPT does not know the folder's model.
    """
    import yaml
    from litgpt.config import Config

    path = folder / MODEL_CONFIG
    if not path.is_file():
        from inheritune_lit.checkpoint.opening import named_config

        if is_hugging_face(folder):
            return named_config(folder)
        raise InheritError(
            f"{path} is missing: {folder} is no checkpoint folder, neither litGPT's nor one of Hugging Face's with "
            f"{HF_CONFIG} and model.safetensors."
        )
    try:
        config = Config.from_file(path)
    except Exception as error:  # litGPT checks with asserts and lets YAML's and the constructor's errors through
        raise InheritError(f"litGPT does not accept {path}: {type(error).__name__}: {error}") from error
    stated = yaml.safe_load(path.read_text(encoding="utf-8"))  # the Config itself has cut lists that were too long
    check_per_layer({name: stated.get(name) for name in PER_LAYER}, config.n_layer, path)
    return config


def check_per_layer(lists: Mapping[str, Any], n_layer: int, path: Path) -> None:
    """Lists with an entry for each block have as many as there are blocks; None is no list.

    Raises:
        InheritError: naming those of another length.
    """
    wrong = [f"{name} has {len(v)}" for name, v in lists.items() if v is not None and len(v) != n_layer]
    if wrong:
        raise InheritError(
            f"{path} says something of each block for another number of blocks than {n_layer}: {', '.join(wrong)} "
            "entries. It was copied from another depth: give each list one entry per block."
        )


def refuse_code(folder: Path) -> None:
    """Refuses a folder whose settings could make transformers run code, in spite of `trust_remote_code=False`.

    `_attn_implementation*` may name a kernel, which the package `kernels` fetches from a hub and runs (CVE-2026-4372).
    `trust_remote_code` in config.json is heeded by a config class that opens another folder's (CVE-2026-5241). Beside
    an adapter_config.json, transformers opens the model that it names, whose config.json nobody has looked at.

    Raises:
        InheritError: naming the file and its keys.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        raise InheritError(
            f"{folder} holds an {ADAPTER_CONFIG}: transformers would open the model that it names instead. Merge the "
            "adapter into its model and save that, or delete the file."
        )
    path = folder / HF_CONFIG
    found: set[str] = set()
    values: list[Any] = [read_json(path, "Hugging Face config")] if path.is_file() else []
    while values:
        value = values.pop()
        if isinstance(value, dict):
            found |= {key for key in value if "attn_implementation" in key or key == "trust_remote_code"}
        values += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if found:
        raise InheritError(
            f"{path} has {', '.join(sorted(found))}: by such a key transformers can be made to run code from a hub. "
            "No model needs it. If you trust where the folder comes from, delete the key and run again."
        )


def expected_shapes(config: "Config") -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of the model that a Config describes."""
    return {name: tuple(tensor.shape) for name, tensor in gpt2.build_empty(config).state_dict().items()}


def check_names_and_shapes(weights: Weights, config: "Config", folder: Path) -> None:
    """Every tensor of the model that model_config.yaml describes is there in its shape, and no other.

    Raises:
        InheritError: naming up to five tensors that contradict model_config.yaml.
    """
    if problems := mismatches(expected_shapes(config), {name: tuple(weights.layout(name).shape) for name in weights}):
        stated = path if (path := folder / MODEL_CONFIG).is_file() else f"litGPT's {config.name}"
        raise InheritError(
            f"{weights.path} contradicts {stated} (n_layer {config.n_layer}, n_embd {config.n_embd}, "
            f"padded_vocab_size {config.padded_vocab_size}): {'; '.join(first_few(problems))}."
        )


def mismatches(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What differs between the tensors of a model and those that were found, by name → shape."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not in the model" for name in sorted(found, key=natural) if name not in expected]
    both = [name for name in expected if name in found and found[name] != expected[name]]
    return problems + [f"{name} has shape {found[name]}, expected {expected[name]}" for name in both]


def checkpoint_folder(value: Any) -> Path:
    """A checkpoint's folder as litGPT looks for it: below checkpoints/ too."""
    by_pieces()
    folder: Path = import_module("litgpt.utils").extend_checkpoint_dir(Path(str(value)))
    return folder
