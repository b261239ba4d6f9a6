"""litGPT's settings out of its source files alone: what a recipe may hold, without the seconds of importing litGPT.

litGPT keeps args.py and config.py free of other imports; of `litgpt pretrain` only the signature is compiled.
"""

import ast
import importlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from inheritune_lit.base.piecewise import by_pieces, compiled, litgpt_file
from inheritune_lit.data import MODULES

PACKED = {f"inheritune_lit.data{file}.{name}": name for name in MODULES for file in ("", f".{MODULES[name]}")}
"""class_path → name of our data modules"""


def litgpt_module(name: str) -> ModuleType:
    """A module of litGPT; args, config and types import nothing heavy."""
    by_pieces()
    return importlib.import_module(f"litgpt.{name}")


def config_class() -> Any:
    """litGPT's Config."""
    return litgpt_module("config").Config


@cache
def pretrain_setup() -> Callable[..., None]:
    """The signature of `litgpt pretrain`'s function, without its body; `data` is a mapping in it."""
    args, kinds = litgpt_module("args"), litgpt_module("types")
    names = {name: getattr(args, name) for name in ("TrainArgs", "EvalArgs", "LogArgs")}
    names |= {"Config": config_class(), "LoggerChoice": kinds.LoggerChoice, "Path": Path, "Literal": Literal}
    path = litgpt_file("pretrain.py")
    setup = _definition(path, ast.FunctionDef, "setup")
    setup.body = [ast.Pass(lineno=setup.lineno, col_offset=0)]
    function: Callable[..., None] = compiled([setup], path, {**names, "DataModule": dict[str, Any]})["setup"]
    return function


def pretrain_settings() -> dict[str, inspect.Parameter]:
    """The settings of `litgpt pretrain`, with types and defaults."""
    return dict(inspect.signature(pretrain_setup()).parameters)


def _definition(path: Path, kind: Any, name: str) -> Any:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return next(node for node in tree.body if isinstance(node, kind) and node.name == name)


@cache
def data_settings(name: str) -> Any:
    """The settings of one of our data modules out of its source, as a dataclass: importing it takes all of litGPT."""
    from dataclasses import dataclass, field

    path = Path(__file__).parents[1] / f"data/{MODULES[name]}.py"
    cls = _definition(path, ast.ClassDef, name)
    cls.bases = [base for base in cls.bases if base.id in MODULES]
    cls.body = [node for node in cls.body if isinstance(node, ast.AnnAssign)]
    known = {base.id: data_settings(base.id) for base in cls.bases}
    return compiled([cls], path, {"dataclass": dataclass, "field": field, "Path": Path, **known})[name]
