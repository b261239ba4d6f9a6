"""litGPT's settings out of its source files alone: what a recipe may hold, without the seconds of importing litGPT.

litGPT keeps args.py and config.py free of other imports; of its big modules the one function wanted is compiled.
"""

import ast
import importlib.util
import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

PACKED = ("inheritune_lit.data.PackedTokens", "inheritune_lit.data.tokens.PackedTokens")


@cache
def litgpt_module(name: str) -> ModuleType:
    """litGPT's module `args`, `config` or `types`, whose own imports are light; litgpt/__init__.py is not run."""
    if (imported := sys.modules.get(f"litgpt.{name}")) is not None:
        return imported
    alias = f"_litgpt_{name}"
    spec = importlib.util.spec_from_file_location(alias, _folder() / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _folder() -> Path:
    spec = importlib.util.find_spec("litgpt")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def config_class() -> Any:
    """litGPT's Config."""
    return litgpt_module("config").Config


@cache
def pretrain_settings() -> dict[str, inspect.Parameter]:
    """The settings of `litgpt pretrain`, with types and defaults."""
    args, kinds = litgpt_module("args"), litgpt_module("types")
    names = {name: getattr(args, name) for name in ("TrainArgs", "EvalArgs", "LogArgs")}
    names |= {"Config": config_class(), "LoggerChoice": kinds.LoggerChoice, "Path": Path, "Literal": Literal}
    setup = _function("pretrain.py", "setup", {**names, "DataModule": Any}, body=False)
    return dict(inspect.signature(setup).parameters)


@cache
def _extend_checkpoint_dir() -> Any:
    return _function("utils.py", "extend_checkpoint_dir", {"Path": Path}, body=True)


def checkpoint_folder(value: Any) -> Path:
    """A checkpoint's folder as litGPT looks for it: below checkpoints/ too."""
    folder: Path = _extend_checkpoint_dir()(Path(str(value)))
    return folder


def _function(file: str, name: str, names: dict[str, Any], *, body: bool) -> Any:
    path = _folder() / file
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    if not body:
        function.body = [ast.Pass(lineno=function.lineno, col_offset=0)]
    exec(compile(ast.Module([function], []), str(path), "exec"), names)
    return names[name]


def dataclass_settings(module: str, name: str) -> list[str]:
    """The settings of a dataclass of ours, out of its source: those that its constructor takes."""
    path = Path(__file__).parents[1] / (module + ".py")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = [node for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return [f.target.id for f in fields if "init=False" not in ast.unparse(f)]  # type: ignore[union-attr]
