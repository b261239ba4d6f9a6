"""A folder's receipt: what it is made of, by what, and its files' hashes. Every receipt is written and read here."""

import importlib.metadata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.base.command_line import given_command
from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, sha256_file, write_json
from inheritune_lit.checkpoint.folder import HF_CONFIG, MODEL_CONFIG, RECEIPT, TOKENIZER_FILES


def write_receipt(
    folder: Path,
    kind: str,
    content: Mapping[str, Any],
    *,
    sha256: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    packages: Collection[str] = (),
) -> dict[str, Any]:
    """Writes the receipt of a folder that is whole but for it.

    Args:
        folder: All its files are listed, by size and SHA-256.
        kind: surgery, conversion, run, export or analysis.
        content: What it is made of. `is_done` compares what a command would put here, the `inputs` among it.
        sha256: Of files that were hashed while they were written.
        without: Files that people may edit, and which are not listed therefore.
        packages: Whose versions count besides ours, litGPT's and torch's.

    Returns:
        The receipt.
    """
    hashed = sha256 or {}
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashed.get(path.name) or sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.name not in without
    }
    made = {"command": given_command(), "versions": versions(*packages), "files": files}
    receipt = {"format": 1, "kind": kind, **content, **made}
    write_json(folder / RECEIPT, receipt)
    return receipt


def is_done(out_dir: Path, kind: str, content: Mapping[str, Any]) -> bool:
    """Whether a command's folder is there, whole, and made from the same with the same settings; says so if it is.

    Args:
        out_dir: May be missing, or have no receipt that tells: not done then, and `staging` refuses to replace it.
        kind: As write_receipt takes it.
        content: What of the receipt is known before the work, `inputs` (see inputs_of) among it.

    Raises:
        InheritError: it was made from something else or with other settings, or its files are not its receipt's.
    """
    if not (out_dir / RECEIPT).is_file():
        return False
    receipt = read_receipt(out_dir)
    if "inputs" not in receipt:  # 0.1.0's, or a run's
        return False
    wanted = {"kind": kind, **content}
    if changed := differences({name: receipt[name] for name in wanted if name in receipt}, wanted):
        raise InheritError(
            f"{out_dir} exists already, and was made otherwise: {'; '.join(changed)}. Choose another folder, or pass "
            "--overwrite to replace it."
        )
    check_files(out_dir, receipt["files"])
    print(f"{out_dir} is whole already, made from the same files with the same settings.")
    return True


def inputs_of(folder: Path, fingerprint: str | None) -> dict[str, str | None]:
    """What a checkpoint folder gives to what is made of it: its weights' fingerprint and its other files' SHA-256.

    Args:
        folder: The checkpoint's.
        fingerprint: Weights.fingerprint(); None if no weights are read.
    """
    names = (MODEL_CONFIG, HF_CONFIG, *TOKENIZER_FILES)
    files = {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}
    return {"weights": fingerprint, **files}


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


def versions(*packages: str) -> dict[str, str]:
    """The versions of what decides the bytes of our output, and of other packages."""
    return {name: importlib.metadata.version(name) for name in ("inheritune_lit", "litgpt", "torch", *packages)}
