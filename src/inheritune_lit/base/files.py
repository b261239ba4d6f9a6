"""Small JSON files, written whole and durable; hashes of files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.file_system import sync


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a small JSON file and makes it durable, so that a receipt written last vouches for what came before it."""
    # a file's name may hold bytes that are no UTF-8, in Python halves of surrogate pairs: JSON's own escape keeps them
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
    sync(path)


def write_json_whole(path: Path, content: dict[str, Any]) -> None:
    """write_json, such that a file that is there is whole, however the run that wrote it ended."""
    part = path.with_name(f".{path.name}")
    write_json(part, content)
    part.rename(path)


def read_json(path: Path, what: str, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a JSON object; `what` names it in the error, `needed` are keys that it must have.

    Raises:
        InheritError: the file is missing, is not a JSON object, or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InheritError(f"Can't read the {what} {path}: {error}") from error
    if not isinstance(content, dict):
        raise InheritError(f"The {what} {path} holds a {type(content).__name__}, expected a JSON object.")
    if lacking := [key for key in needed if key not in content]:
        raise InheritError(
            f"The {what} {path} is damaged: no {', '.join(lacking)}. Copy it again from where it is whole."
        )
    return content


def digest_of(value: Any) -> str:
    """A value's own name: the first 16 digits of the SHA-256 of its JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sha256_of(files: Iterable[Path], folder: Path) -> str:
    """SHA-256 over the names and contents of files in a folder."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder)} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, as `sha256sum` prints it; reads 16 MiB at a time."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**24):
                digest.update(chunk)
    except OSError as error:  # which names no file once it is open
        raise OSError(error.errno, error.strerror, str(path)) from error
    return digest.hexdigest()
