"""litGPT piece by piece: its Config, its model or its writer, without the seconds that all of it takes to import.

`import litgpt` runs litgpt/__init__.py, and with it Lightning, torchmetrics and transformers: 4 to 6 s and half a GB. A
Config needs none of that, and the model only because its file takes one function from a file that takes the rest. What
is imported here are litGPT's own modules, under their own names, so that whatever imports all of litGPT later, in the
same process, finds it as ever. Importing this module imports neither torch nor litGPT.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

# Modules that are heavy, and what others take from them that is not
PIECES = {
    "litgpt": ("Config", "GPT", "Tokenizer"),
    "litgpt.utils": (
        "incremental_save",
        "save_config",
        "chunked_cross_entropy",
        "extend_checkpoint_dir",
        "fix_and_load_json",
    ),
    "litgpt.scripts.convert_hf_checkpoint": ("qkv_reassemble",),
}


def by_pieces() -> None:
    """From now on litGPT's modules can be imported one by one; does nothing where litGPT is imported already."""
    if "litgpt" in sys.modules:
        return
    for name in PIECES:
        if (spec := importlib.util.find_spec(name)) is None:
            return  # who needs it says so
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


class _Deferred(ModuleType):
    """A module whose file is run when a name of it is asked for that is none of its PIECES."""

    def __getattr__(self, name: str) -> Any:
        spec: Any = self.__spec__
        if name in PIECES[self.__name__]:
            return piece(Path(spec.origin), name)
        is_its_own = name in spec.loader.get_code(self.__name__).co_names  # those that running the file could make
        if not is_its_own and not ("__path__" in vars(self) and importlib.util.find_spec(f"{self.__name__}.{name}")):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on as if it were imported now
        try:
            spec.loader.exec_module(self)
        except BaseException:
            self.__class__ = _Deferred
            raise
        return getattr(self, name)


def litgpt_file(name: str) -> Path:
    """The path of a source file of litGPT, such as pretrain.py."""
    spec = importlib.util.find_spec("litgpt")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / name


@cache
def piece(path: Path, name: str) -> Any:
    """A function or class of a Python file, compiled with the definitions and imports of that file that it uses."""
    return piece_with({}, path, name)


def piece_with(names: Mapping[str, Any], path: Path, name: str) -> Any:
    """A piece of a file in which some names are these objects, and not what the file says."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):  # annotations would want what is not used otherwise
            node.returns = None
            for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                arg.annotation = None
    binding = {bound: node for node in tree.body for bound in _bound(node)}
    wanted, found = [name], set()
    while wanted:
        if (one := wanted.pop()) in binding and one not in found and one not in names:
            found.add(one)
            wanted += [used.id for used in ast.walk(binding[one]) if isinstance(used, ast.Name)]
    nodes = [node for node in tree.body if found.intersection(_bound(node))]
    return compiled(nodes, path, names)[name]


def _bound(node: ast.stmt) -> Iterable[str]:
    """The names that a statement at the top of a file defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def compiled(nodes: list[ast.stmt], path: Path, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What statements of a file define, run with these names beside them."""
    module = ModuleType(f"_{path.stem}_of_{path.parent.name}")
    sys.modules[module.__name__] = module  # dataclasses and inspect look their module up
    vars(module).update(names or {}, __file__=str(path))
    exec(compile(ast.Module(nodes, []), str(path), "exec"), vars(module))
    return vars(module)
