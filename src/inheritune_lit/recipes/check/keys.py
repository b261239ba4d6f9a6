"""The settings one by one: unknown, misspelt and repeated keys; values of another type, out of range, or no full path.

Keys and types are judged by litGPT's own parser. As that stops at the first mistake, each setting is parsed by itself.
"""

import dataclasses
import difflib
import importlib
import inspect
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal

from inheritune_lit.base.paths import in_full, problem_of
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding, error
from inheritune_lit.recipes.litgpt_settings import PACKED, data_settings, pretrain_settings, pretrain_setup
from inheritune_lit.recipes.recipe import MOST, RANGES, in_range

CLASSES = {"data": "litgpt.data", "optimizer": "torch.optim"}
"""Settings that are a class with its own settings, and where litGPT looks for one that is named without its package"""
REQUIRED = ("train.max_tokens", "train.max_norm")  # though its parser takes null, as other commands of it do
FIXES = {
    "model_name": "Name the reference: litGPT wants it even beside model_config.",
    "data.init_args.data_path": "Name the folder that `inheritune prepare` wrote.",
    "train.save_interval": "Write after how many steps to save, or null to save at the end only.",
    "optimizer.init_args.lr": "Write the peak learning rate, such as 3.0e-04.",
    "devices": "Write a number of GPUs, or auto for all of them.",
}


def check_keys(document: Document) -> list[Finding]:
    """What stands in the file beside what `litgpt pretrain` knows."""
    findings = [
        error(key, "It stands more than once; only the last one counts, in silence.", "Keep one of them.")
        for key in document.repeated
    ]
    findings += _block("", pretrain_setup(), {k: v for k, v in document.content.items() if k not in _blocks()})
    for name, kind in _blocks().items():
        value = document.content.get(name)
        findings += _class(name, value) if name in CLASSES else _block(name, kind, value)
    named = {finding.key for finding in findings}
    return findings + [f for f in (*_numbers(document), *_paths(document)) if f.key not in named]


@cache
def _blocks() -> dict[str, Any]:
    """Settings of `litgpt pretrain` that hold others, and the class that says which."""
    kinds = {name: _kinds(p.annotation) for name, p in pretrain_settings().items()}
    blocks = {name: next(filter(dataclasses.is_dataclass, of), None) for name, of in kinds.items()}
    return {name: cls for name, cls in blocks.items() if cls or name in CLASSES}


@cache
def _parser(settings: Any) -> Any:
    """litGPT's parser of the settings that a class or a function takes."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(settings) else parser.add_function_arguments
    skip: set[str | int] = {"params"} if inspect.isclass(settings) else {*_blocks()}
    add(settings, fail_untyped=False, skip=skip)
    parser.required_args.clear()  # for settings one by one
    return parser


def _settings(of: Any) -> dict[str, inspect.Parameter]:
    """What a recipe can give a class or a function."""
    given = {name: p for name, p in inspect.signature(of).parameters.items() if name != "params"}  # an optimizer's
    return {name: p for name, p in given.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _takes(settings: Any, values: Mapping[str, Any]) -> bool:
    try:
        _parser(settings).parse_object(dict(values), defaults=False)
    except Exception:  # jsonargparse lets through what a value's own type raises
        return False
    return True


def _block(name: str, settings: Any, values: Any) -> Iterator[Finding]:
    """What of the values a class or a function does not take.

    Args:
        name: The values' dotted key; "" at the top of the recipe.
        settings: The class or function.
        values: As they stand in the recipe.
    """
    values = {} if values is None else values
    if not isinstance(values, dict):
        advice = "Write the settings themselves, as a block under the key."
        if name == "model_config":
            advice = "Write the whole block, as `inheritune recipes copy` shows it; litGPT takes no path here."
        yield error(name, f"It is {values!r}, and litGPT wants a block of settings.", advice)
        return
    known, prefix = _settings(settings), f"{name}." if name else ""
    for key, parameter in known.items():
        if parameter.default is parameter.empty and values.get(key) is None:
            where = prefix + key
            yield error(where, "It is not given, and litGPT requires it.", FIXES.get(where, "Write it."))
    if None not in values.values() and _takes(settings, values):
        return
    for key, value in values.items():
        where = f"{prefix}{key}"
        if key not in known:
            yield error(where, "There is no such setting: litGPT refuses the recipe.", _spelling(str(key), known))
        elif not _fits(settings, known[key], value):
            yield _wrong(where, value, _kinds(known[key].annotation))


def _spelling(key: str, known: Iterable[str], otherwise: str = "Remove it.") -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else otherwise


def _fits(settings: Any, parameter: inspect.Parameter, value: Any) -> bool:
    if value is None:  # which the parser lets pass everywhere
        return parameter.default is parameter.empty or None in _kinds(parameter.annotation)
    return _takes(settings, {parameter.name: value})


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types, and the values of a Literal, that an annotation allows."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, Literal):
        return tuple(kind for part in typing.get_args(annotation) for kind in _kinds(part))
    return (None if annotation is types.NoneType else annotation,)


def _wrong(key: str, value: Any, kinds: tuple[Any, ...]) -> Finding:
    if isinstance(value, float) and value.is_integer() and int in kinds:
        text = f"It is {value!r}, a float; litGPT wants a whole number and refuses the recipe."
        return error(key, text, f"Write {int(value)}.")
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", None: "null"}
    shown = " or ".join(names.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds)
    return error(key, f"It is {value!r}, expected {shown}.", "Write a value of that kind.")


def _class(name: str, value: Any) -> Iterator[Finding]:
    """`data` and `optimizer`: a class and its settings."""
    value = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        yield from _block(name, None, value) if value is not None else ()
        return
    for extra in value.keys() - {"class_path", "init_args", "dict_kwargs"}:
        fix = "Put the class's settings under init_args."
        yield error(f"{name}.{extra}", "litGPT wants class_path and init_args here.", fix)
    if (path := value.get("class_path")) is None:
        yield error(f"{name}.class_path", "litGPT requires it here.", "Name the class.")
        return
    module, _, cls = str(path).rpartition(".")
    try:
        # importing ours takes all of litGPT
        found = (
            data_settings(cls)
            if str(path) in PACKED
            else getattr(importlib.import_module(module or CLASSES[name]), cls)
        )
        _settings(found)
    except (ImportError, AttributeError, ValueError, TypeError):
        home = dir(importlib.import_module(CLASSES[name]))
        fix = _spelling(cls, home, "Install its package, or mend the spelling.")
        yield error(f"{name}.class_path", f"There is no {path} in this environment.", fix)
        return
    yield from _block(f"{name}.init_args", found, value.get("init_args"))


def _numbers(document: Document) -> Iterator[Finding]:
    """What lies outside of its range; in what litGPT's parser leaves untyped, what is no number, too."""
    for key in REQUIRED:
        if document.states(key) and document.get(key) is None:
            yield error(key, "It is null, and litGPT requires it.", "Write a number.")
    for key, (low, high) in RANGES.items():
        value = document.get(key)
        if value is None or in_range(key, value) or (key == "devices" and value in ("auto", -1)):
            continue
        if key.startswith("data.") and str(document.get("data.class_path")) not in PACKED:
            continue
        wanted = f"a number from {low} " + ("on" if high == MOST else f"to {high}")
        yield error(key, f"It is {value!r}, expected {wanted}.", FIXES.get(key, f"Write {wanted}."))


def _paths(document: Document) -> Iterator[Finding]:
    """litGPT takes every character of a path as it stands, as no shell has seen it."""
    settings = document.get("data.init_args")
    of_data = [f"data.init_args.{key}" for key in settings] if isinstance(settings, dict) else []
    of_data = [key for key in of_data if key.endswith(("path", "dir"))]
    for key in ("out_dir", "tokenizer_dir", "initial_checkpoint_dir", "resume", *of_data):
        value = document.get(key)
        if isinstance(value, str) and (problem := problem_of(value)):
            full = os.path.expandvars(in_full(value.strip()))
            fix = f"Write it out in full: {full}." if full.strip() and "\0" not in full else "Name a folder."
            yield error(key, f"The path {value!r} {problem}.", fix)
