"""A folder's receipt: what it is made of, and its files' hashes."""

import importlib.metadata
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, sha256_file
from inheritune_lit.checkpoint.folder import RECEIPT


def check_files(folder: Path, files: dict[str, dict[str, object]]) -> None:
    """Sizes and SHA-256 of the files a receipt lists.

    Raises:
        InheritError: naming every file that is missing or differs.
    """
    problems = []
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != entry["bytes"]:
            problems.append(f"{name} has {size:,} bytes, expected {entry['bytes']:,}")
        elif (digest := sha256_file(path)) != entry["sha256"]:
            problems.append(f"{name} has SHA-256 {digest[:16]}…, expected {str(entry['sha256'])[:16]}…")
    if problems:
        raise InheritError(f"{folder} is not what its {RECEIPT} says: {'; '.join(problems)}. Write it again.")


def read_receipt(folder: Path) -> dict[str, Any]:
    """The folder's receipt.

    Raises:
        InheritError: there is none, or it is not one of ours.
    """
    path = folder / RECEIPT
    if not path.is_file():
        raise InheritError(f"{folder} has no receipt ({RECEIPT}): it was not written by inheritune, or not to its end.")
    receipt = read_json(path, "receipt")
    files = receipt.get("files")
    well_formed = isinstance(files, dict) and all(
        Path(name).name == name != ".."
        and len(name.encode(errors="replace")) < 256
        and isinstance(entry, dict)
        and type(entry.get("bytes")) is int
        and type(entry.get("sha256")) is str
        for name, entry in files.items()
    )
    if not well_formed:
        raise InheritError(f"The receipt {path} does not list its files as plain names with bytes and sha256.")
    return receipt


def versions() -> dict[str, str]:
    """The versions of what decides the bytes of our output."""
    return {name: importlib.metadata.version(name) for name in ("inheritune_lit", "litgpt", "torch")}
