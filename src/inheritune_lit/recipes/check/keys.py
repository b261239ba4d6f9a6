"""Keys and types: unknown, misspelt and repeated keys, values of another type than litGPT's setting."""

import dataclasses
import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.litgpt_settings import PACKED, config_class, data_settings, litgpt_module, pretrain_settings


def check_keys(document: Document) -> list[Finding]:
    """What stands in the file beside what `litgpt pretrain` knows."""
    args = litgpt_module("args")
    findings = [
        Finding("error", key, "It stands more than once; only the last one counts, in silence.", "Keep one of them.")
        for key in document.repeated
    ]
    top = {name: p.annotation for name, p in pretrain_settings().items()}
    findings += _unknown(document.content, top, "")
    blocks: dict[str, Any] = {"train": args.TrainArgs, "eval": args.EvalArgs, "log": args.LogArgs}
    blocks["model_config"] = config_class()
    for name, cls in blocks.items():
        value = document.content.get(name)
        if isinstance(value, dict):
            known = typing.get_type_hints(cls)
            findings += _unknown(value, {f.name: known[f.name] for f in dataclasses.fields(cls)}, f"{name}.")
        elif value is not None:
            findings.append(_not_a_block(name, value))
    plain = {name: kind for name, kind in top.items() if name not in (*blocks, "data", "optimizer")}
    findings += _types(document.content, plain, "")
    return findings + _class(document, "data") + _class(document, "optimizer")


def _not_a_block(name: str, value: Any) -> Finding:
    advice = "Write the settings themselves, as a block under the key."
    if name == "model_config":
        advice = "Write the whole block, as `inheritune recipes copy` shows it; litGPT takes no path here."
    return Finding("error", name, f"It is {value!r}, and litGPT wants a block of settings.", advice)


def _unknown(content: dict[str, Any], known: dict[str, Any], prefix: str) -> list[Finding]:
    findings = []
    for key in content:
        if key not in known:
            fix = _spelling(str(key), known) or "Remove it."
            findings.append(
                Finding("error", f"{prefix}{key}", "litGPT has no such setting and refuses the recipe.", fix)
            )
    return findings + (_types(content, known, prefix) if prefix else [])


def _spelling(key: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else None


def _types(content: dict[str, Any], known: dict[str, Any], prefix: str) -> list[Finding]:
    findings = []
    for key, value in content.items():
        if key not in known or _fits(value, known[key]):
            continue
        problem, fix = f"It is {value!r}, expected {_shown(known[key])}.", "Write a value of that kind."
        if isinstance(value, float) and value.is_integer() and int in _kinds(known[key]):
            problem = f"It is {value!r}, a float; litGPT wants a whole number and refuses the recipe."
            fix = f"Write {int(value)}."
        findings.append(Finding("error", f"{prefix}{key}", problem, fix))
    return findings


def _kinds(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return tuple(kind for part in typing.get_args(annotation) for kind in _kinds(part))
    if typing.get_origin(annotation) is Literal:
        return tuple(typing.get_args(annotation))
    return (annotation,)


def _fits(value: Any, annotation: Any) -> bool:
    """Only of plain kinds; of others (paths, lists) litGPT's own parser says."""
    kinds = _kinds(annotation)
    if value is None:
        return type(None) in kinds or None in kinds or not any(kind in (int, float, bool) for kind in kinds)
    plain = [kind for kind in kinds if kind in (int, float, bool)]
    names = [kind for kind in kinds if isinstance(kind, str)]
    if names and not plain:
        return value in names
    if not plain or len(plain) + len(names) + (type(None) in kinds) < len(kinds):
        return True
    if isinstance(value, bool):
        return bool in plain
    return (isinstance(value, int) and bool(set(plain) & {int, float})) or (
        isinstance(value, float) and float in plain
    ) or value in names  # fmt: skip


def _shown(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null", None: "null"}
    return " or ".join(names.get(kind, str(kind)) for kind in _kinds(annotation))


def _class(document: Document, name: str) -> list[Finding]:
    """`data` and `optimizer`: a class and its settings."""
    value = document.get(name)
    if not isinstance(value, dict):
        return []
    key, path = f"{name}.class_path", value.get("class_path")
    fix = "Put the class's settings under init_args."
    findings = [
        Finding("error", f"{name}.{extra}", "litGPT wants class_path and init_args here.", fix)
        for extra in value
        if extra not in ("class_path", "init_args", "dict_kwargs")
    ]
    if path is None:
        return [*findings, Finding("error", key, "litGPT requires it here.", "Name the class.")]
    home = "torch.optim" if name == "optimizer" else "litgpt.data"
    module, _, cls = str(path).rpartition(".")
    if str(path) in PACKED:  # importing it takes all of litGPT
        known = list(inspect.signature(data_settings(cls)).parameters)
        return findings + _settings(f"{name}.init_args", cls, value, known)
    try:
        found = getattr(importlib.import_module(module or home), cls)
        known = [p for p in inspect.signature(found).parameters if p not in ("self", "params")]
    except (ImportError, AttributeError, ValueError, TypeError):
        spelling = _spelling(cls, dir(importlib.import_module(home))) or "Install its package, or mend the spelling."
        return [*findings, Finding("error", key, f"There is no {path} in this environment.", spelling)]
    return findings + _settings(f"{name}.init_args", cls, value, known)


def _settings(key: str, cls: str, value: dict[str, Any], known: list[str]) -> list[Finding]:
    settings = value.get("init_args")
    if settings is not None and not isinstance(settings, dict):
        return [_not_a_block(key, settings)]
    return [
        Finding("error", f"{key}.{k}", f"{cls} has no such setting.", _spelling(str(k), known) or "Remove it.")
        for k in settings or {}
        if k not in known
    ]
