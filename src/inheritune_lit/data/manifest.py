"""manifest.json: what a folder of token shards holds and how it was made."""

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json

MANIFEST = "manifest.json"
FORMAT = 1
TOKEN_BYTES = {"uint16": 2, "uint32": 4}
# What decides about the bytes of the shards, next to the files; another value of one of these is another data set.
SETTINGS = (
    *("format", "tokenizer", "dtype", "seed", "val_share", "val_glob", "tasks", "text_key", "domains", "revision"),
    *("budget", "proportions", "allow_repeat", "renormalize", "named_splits"),
)


@dataclass(frozen=True)
class Shard:
    """A file of consecutive tokens: its path relative to the manifest and its length in tokens."""

    path: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """One split's stream: its shards in order, all domains concatenated."""

    shards: tuple[Shard, ...]
    tokens: int
    documents: int
    max_token_id: int

    def windows(self, length: int) -> int:
        """How many windows of `length` + 1 tokens it is cut into, which overlap by one."""
        return max(0, (self.tokens - 1) // length)

    @property
    def sha256(self) -> str:
        """What the stream holds, wherever the folder lies and however it is named."""
        content = [(shard.tokens, shard.sha256) for shard in self.shards]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Manifest:
    """A manifest that was read and checked.

    Raises:
        InheritError: it is missing, or is not a whole manifest of this format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        if not path.is_file():
            raise InheritError(
                f"{folder} holds no token shards: there is no {path}, which `inheritune prepare` writes last. "
                "Check data_path, or run prepare (again: an interrupted run resumes)."
            )
        self.content = read_json(path, "manifest")
        if (found := self.content.get("format")) != FORMAT:
            raise InheritError(f"{path} has format {found!r}, this version reads {FORMAT}. Prepare the data again.")
        try:
            self.dtype: str = self.content["dtype"]
            self.tokenizer: dict[str, Any] = self.content["tokenizer"]
            _of_type(self.tokenizer, {"identity": str, "vocab_size": int})
            self.splits = {name: _split(entries) for name, entries in self.content["splits"].items()}
            self.splits["train"], self.splits["val"]
            known = self.dtype in TOKEN_BYTES
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InheritError(
                f"The manifest {path} is damaged: {type(error).__name__} {error}. Prepare the data again."
            ) from error
        if not known:
            raise InheritError(f"{path}: dtype {self.dtype!r}, expected {' or '.join(TOKEN_BYTES)}. Prepare again.")

    @property
    def stored(self) -> str:
        """NumPy's name of the tokens' type in the files."""
        return f"<u{TOKEN_BYTES[self.dtype]}"

    def check_files(self, splits: tuple[str, ...] = ("train", "val")) -> None:
        """Compares every shard's size with the manifest's.

        Raises:
            InheritError: naming the first shard that is missing or has another size.
        """
        for shard in (shard for split in splits for shard in self.splits[split].shards):
            path, expected = self.folder / shard.path, shard.tokens * int(self.stored[-1])
            try:
                found = path.stat().st_size if path.is_file() else None
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:  # which no file can have
                    raise
                found = None
            if found != expected:
                raise InheritError(
                    f"{path} {'is missing' if found is None else f'has {found:,} bytes'}, the manifest expects "
                    f"{expected:,} bytes ({shard.tokens:,} tokens of {self.dtype}). Copy the folder again or prepare "
                    "it again."
                )


def _split(entries: list[Mapping[str, Any]]) -> Split:
    shards = tuple(_shard(shard) for entry in entries for shard in entry["shards"])
    for entry in entries:
        _of_type(entry, {"domain": str, "tokens": int, "documents": int, "max_token_id": int})
        if sum(shard["tokens"] for shard in entry["shards"]) != entry["tokens"]:
            raise ValueError(f"the shards of {entry['domain']} do not add up to its tokens")
    return Split(
        shards,
        tokens=sum(shard.tokens for shard in shards),
        documents=sum(entry["documents"] for entry in entries),
        max_token_id=max((entry["max_token_id"] for entry in entries), default=-1),
    )


def _shard(entry: Mapping[str, Any]) -> Shard:
    _of_type(entry, {"path": str, "tokens": int, "sha256": str})
    path = PurePosixPath(entry["path"])
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in entry["path"]:
        raise ValueError(f"the path {entry['path']!r} leaves the folder")
    return Shard(str(path), entry["tokens"], entry["sha256"])


def _of_type(entry: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Whole numbers from -1 (no token) to what NumPy can index, and text; JSON's true and false are neither."""
    for name, kind in types.items():
        value = entry[name]
        least = -1 if name == "max_token_id" else 0
        if type(value) is not kind or (isinstance(value, int) and not least <= value < 2**63):
            raise ValueError(f"{name} {value!r}, expected {'text' if kind is str else 'a whole number'}")


def plan_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the shards were made from and how, to compare with what is asked for now: settings, and file sizes."""
    plan = {name: manifest.get(name) for name in SETTINGS}
    return plan | {"files": {file["path"]: file["size"] for file in manifest.get("source", {}).get("files", [])}}
