"""A model in the Hugging Face hub, of whose shards only those are fetched that are needed.

They lie in huggingface_hub's own cache, where a folder is one commit. Importing this module imports no huggingface_hub.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.folder import HF_CONFIG, TOKENIZER_FILES
from inheritune_lit.checkpoint.hugging_face import INDEX, check_index

Headers = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""File → tensor → dtype, shape and data_offsets"""


def snapshot_of(folder: Path) -> tuple[str, str] | None:
    """ORG/NAME and commit of a folder in huggingface_hub's cache; None for any other."""
    match = re.search(r"models--([^/]+)/snapshots/([0-9a-f]{40})$", str(folder.absolute()))
    return (match[1].replace("--", "/"), match[2]) if match else None


def model_name(folder: Path) -> str:
    """What a folder's model is called: as the folder is, or the hub's name of one in its cache."""
    known = snapshot_of(folder)
    return known[0].rpartition("/")[2] if known else folder.absolute().name


def look_up(name: str) -> tuple[Path, Headers | None]:
    """Fetches all of a model but its shards.

    Args:
        name: ORG/NAME, or ORG/NAME@REVISION.

    Returns:
        Its folder, and what the shards' headers say; None where the model is one file, which is fetched.

    Raises:
        InheritError: the hub does not give it, it has no safetensors, or its index contradicts its files.
    """
    from huggingface_hub import HfApi, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        commit = HfApi().model_info(repository, revision=revision or None).sha
        files = [HF_CONFIG, *TOKENIZER_FILES, "model.safetensors", INDEX]
        folder = Path(snapshot_download(repository, revision=commit, allow_patterns=files))
        if (folder / "model.safetensors").is_file():
            return folder, None
        found = HfApi().get_safetensors_metadata(repository, revision=commit).files_metadata
    except Exception as error:  # of many classes: no network, no such name or revision, no safetensors, not permitted
        raise _not_given(name, error) from error
    headers = {
        file: {
            tensor: {"dtype": info.dtype, "shape": info.shape, "data_offsets": info.data_offsets}
            for tensor, info in metadata.tensors.items()
        }
        for file, metadata in found.items()
    }
    check_index(folder / INDEX, read_json(folder / INDEX, "index of weights", ("weight_map",))["weight_map"], headers)
    return folder, headers


def fetch(folder: Path, files: Collection[str]) -> None:
    """Brings some of a model's shards into its folder.

    Raises:
        InheritError: the hub does not give one of them.
    """
    from huggingface_hub import snapshot_download

    known = snapshot_of(folder)
    assert known, "look_up gave another folder"
    print(f"Fetching {', '.join(sorted(files))} of {known[0]} at {known[1]}", flush=True)
    try:
        snapshot_download(known[0], revision=known[1], allow_patterns=[*files])
    except Exception as error:
        raise _not_given(known[0], error) from error


def _not_given(name: str, error: Exception) -> InheritError:
    return InheritError(
        f"The Hugging Face hub did not give {name} as safetensors: {type(error).__name__}: {error}\nCheck name and "
        "network; of a model in other files, fetch all with `hf download`, and give the folder."
    )
