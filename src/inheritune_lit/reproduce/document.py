"""NAME.lock.yaml: read and written. Sorted, small, without anything that YAML could run or blow up into much."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import digest_of
from inheritune_lit.base.folders import natural
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.recipes.listing import LOCK

FORMAT = 1
LARGEST = 2**20  # bytes; the demo's has 10 kB
LARGEST_NUMBER = 10**18
TEXT, NUMBER = (str, type(None)), (int, float, type(None))
NUMBERS = {None: NUMBER}  # None stands for any key
SETTINGS = {None: object}
# What a lock may hold, each key with what may stand there; whatever else does is an error
SCHEMA: dict[Any, Any] = {
    "format": int,
    "checksum": str,
    "name": str,
    "status": ("run", "begun", "not run"),
    "exact": {
        **dict.fromkeys(("reference", "start", "teacher", "tokenizer", "train", "val"), TEXT),
        "recipe": {None: str},
        "batches": [str],
        "versions": {None: str},
    },
    "first_steps": {
        "untrained": NUMBER,
        "losses": NUMBERS,
        "bands": NUMBERS,
        "repeats": int,
        "deviation": NUMBERS,
        "numerics": SETTINGS,
        "allowed": {None: {"measured": str, "losses": NUMBERS}},
    },
    "whole_run": {
        "runs": int,
        "validation": {None: {"tokens": int, "loss": NUMBER, "band": NUMBER}},
        "curve": [[NUMBER]],
        "domains": {None: {"mean": NUMBER, "stderr": NUMBER, "windows": int}},
        "scores": {None: {None: {"metric": str, "num_fewshot": int, "value": NUMBER, "stderr": NUMBER}}},
        "source": TEXT,
    },
    "made": {
        **dict.fromkeys(("machine", "git"), TEXT),
        **dict.fromkeys(("seconds", "tokens_per_second", "mfu", "tokens", "steps"), NUMBER),
    },
    "inputs": {
        "reference": dict.fromkeys(("name", "hub", "package", "licence", "bytes"), (*TEXT, int)),
        "surgery": SETTINGS,
        "data": SETTINGS,
    },
}


def lock_of(recipe: Path) -> Path:
    """The lock that stands beside a recipe, whether it is there or not."""
    return recipe.with_name(recipe.stem + LOCK)


def checksum(content: Mapping[str, Any]) -> str:
    """Over everything else in a lock: it tells an edit by hand, not a forgery."""
    return digest_of({name: value for name, value in content.items() if name != "checksum"})


def lock_text(content: Mapping[str, Any]) -> str:
    """The file, with its format and checksum."""
    # its keys are text, as they will be when read; of a loss, more digits than any band needs
    whole = json.loads(json.dumps({"format": FORMAT, **content}), parse_float=lambda text: float(f"{float(text):.8g}"))
    whole["checksum"] = checksum(whole)
    head = "# Written by `inheritune lock`, checked by `inheritune reproduce`: write it anew rather than edit it.\n"
    return head + yaml.safe_dump(_sorted(whole), allow_unicode=True, width=120, sort_keys=False)


def _sorted(value: Any) -> Any:
    """With all keys in order, 2 before 10."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value, key=natural)}
    return value


def read_lock(path: Path) -> dict[str, Any]:
    """The content of a lock.

    Raises:
        InheritError: it is missing, too large, of another format, holds what no lock holds, or was edited by hand.
    """
    if not path.is_file():
        raise InheritError(f"{path} is missing: `inheritune lock RUN` writes it, from a run of the recipe beside it.")
    if (size := path.stat().st_size) > LARGEST:
        raise InheritError(f"{path} has {size:,} bytes, a lock has {LARGEST:,} at most: it is none.")
    try:
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InheritError(f"Can't read the lock {path}: {' '.join(str(error).split())}") from error
    if aliases:  # which a small file can repeat a billion times with
        raise InheritError(f"{path} holds YAML aliases (*name), which no lock needs. Get it again from who made it.")
    document = read_document(path)
    if document.repeated:
        raise InheritError(f"{path} has keys that stand more than once: {', '.join(document.repeated)}.")
    content = document.content
    if content.get("format") != FORMAT:
        raise InheritError(f"{path} has format {content.get('format')!r}, this version reads {FORMAT}.")
    if problem := _problem(content, SCHEMA, ""):
        raise InheritError(f"{path} is no lock of format {FORMAT}: {problem}. Get it again from who made it.")
    if (found := checksum(content)) != content.get("checksum"):
        raise InheritError(
            f"{path} was edited since it was written: its checksum is {content.get('checksum')}, its content's "
            f"{found}. Write it anew with `inheritune lock`, or get it again from who made it."
        )
    return content


def _problem(value: Any, schema: Any, where: str) -> str | None:
    """What of a value is not as its schema has it; None if nothing is."""
    if isinstance(schema, list) and isinstance(value, list):
        return next(filter(None, (_problem(item, schema[0], f"{where}[{i}]") for i, item in enumerate(value))), None)
    if isinstance(schema, dict) and isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or (name not in schema and None not in schema):
                return f"{where or 'it'} has the unknown key {name!r}"
            if problem := _problem(item, schema.get(name, schema.get(None)), f"{where}.{name}".lstrip(".")):
                return problem
        lacking = [name for name in schema if name is not None and name not in value]
        return f"{where or 'it'} lacks {', '.join(lacking)}" if lacking else None
    if isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER:  # NaN is not below it either
        return f"{where} is {value}"
    if schema is object:
        return None
    kinds = schema if isinstance(schema, tuple) else (schema,)
    return None if type(value) in kinds or value in kinds else f"{where} is {value!r:.60}"
