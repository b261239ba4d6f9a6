"""litGPT's settings out of its source files alone: what a recipe may hold, without the seconds of importing litGPT.

litGPT keeps args.py and config.py free of other imports; of `litgpt pretrain` only the signature is compiled.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from inheritune_lit.base.piecewise import by_pieces, compiled, litgpt_file
from inheritune_lit.data import MODULES

PACKED = {f"inheritune_lit.data{file}.{name}": name for name in MODULES for file in ("", f".{MODULES[name]}")}
"""class_path → name of our data modules"""


def config_class() -> Any:
    """litGPT's Config."""
    by_pieces()
    from litgpt.config import Config

    return Config


@cache
def pretrain_setup() -> Callable[..., None]:
    """The signature of `litgpt pretrain`'s function, without its body."""
    by_pieces()
    args, types = (importlib.import_module(f"litgpt.{name}") for name in ("args", "types"))
    path = litgpt_file("pretrain.py")
    setup = _definition(path, "setup")
    setup.body = [ast.Pass(lineno=setup.lineno, col_offset=0)]
    names = {**vars(args), "Config": config_class(), "LoggerChoice": types.LoggerChoice}
    names |= {"Path": Path, "Literal": Literal, "DataModule": dict[str, Any]}
    function: Callable[..., None] = compiled([setup], path, names)["setup"]
    return function


def pretrain_settings() -> Mapping[str, inspect.Parameter]:
    """The settings of `litgpt pretrain`, with types and defaults."""
    return inspect.signature(pretrain_setup()).parameters


def _definition(path: Path, name: str) -> Any:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return next(node for node in tree.body if getattr(node, "name", None) == name)


@cache
def data_settings(name: str) -> Any:
    """The settings of one of our data modules out of its source, as a dataclass: importing it takes all of litGPT."""
    path = Path(__file__).parents[1] / f"data/{MODULES[name]}.py"
    cls = _definition(path, name)
    cls.bases = [base for base in cls.bases if base.id in MODULES]
    cls.body = [node for node in cls.body if isinstance(node, ast.AnnAssign)]
    names = {"dataclass": dataclass, "field": field, "Path": Path}
    return compiled([cls], path, names | {base.id: data_settings(base.id) for base in cls.bases})[name]
