"""A `litgpt pretrain` recipe as litGPT reads it, and as it stands in its file, with lines and repeated keys."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from inheritune_lit.base.folders import InheritError

if TYPE_CHECKING:
    from jsonargparse import Namespace


class _Loader(yaml.SafeLoader):
    """Reads 3e-4 and 8e9 as numbers, as litGPT's parser does and YAML 1.1 does not."""

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}  # noqa: RUF012


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class Document:
    """What stands in a recipe's file."""

    content: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    """Dotted key → line, from 1"""
    repeated: dict[str, int] = field(default_factory=dict)
    """Dotted key that stands more than once → line of the last, which is the one that counts"""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key; None stands for `null` and for what is left out alike."""
        value: Any = self.content
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return default if value is None else value

    def states(self, key: str) -> bool:
        """Whether the key stands there, with whatever value."""
        return key in self.lines


def read_document(path: Path) -> Document:
    """Reads the YAML alone: nothing in it is interpreted.

    Raises:
        InheritError: the file can't be read, is not YAML, or is not a mapping of settings.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        document = Document(loader.construct_document(node) if node else {})
    except OSError as error:
        raise InheritError(f"Can't read the recipe {path}: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InheritError(f"The recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document.content, dict):
        raise InheritError(
            f"The recipe {path} holds a {type(document.content).__name__}, expected settings: `key: value`."
        )
    if node:
        _note_lines(node, "", document)
    return document


def _note_lines(node: yaml.Node, prefix: str, document: Document) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in document.lines:
            document.repeated[name] = line
        document.lines[name] = line
        _note_lines(value, f"{name}.", document)


def parse_recipe(path: Path) -> "Namespace":
    """The recipe as `litgpt pretrain` would take it: typed, with litGPT's defaults for what it leaves out.

    Raises:
        InheritError: litGPT's parser refuses it.
    """
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    from inheritune_lit.recipes.litgpt_settings import PACKED, packed_tokens, pretrain_setup

    data = read_document(path).get("data")
    is_packed = isinstance(data, dict) and data.get("class_path") in PACKED
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(pretrain_setup() if is_packed else _imported_setup(), fail_untyped=False)
    try:
        settings = parser.parse_args(["--config", str(path)])
        if is_packed:  # as the parser would do, if it imported the class
            of_data = ArgumentParser(exit_on_error=False)
            of_data.add_class_arguments(packed_tokens())
            settings.data = Namespace(settings.data | {"init_args": of_data.parse_object(settings.data["init_args"])})
        return settings
    except (ArgumentError, TypeError, ValueError) as error:
        raise InheritError(
            f"litGPT does not accept the recipe {path}: {' '.join(str(error).split())}\n"
            f"`inheritune recipes validate {path}` lists all that is wrong with it."
        ) from error


def _imported_setup() -> Any:
    from litgpt.pretrain import setup  # with it, all of litGPT: the recipe's data may be any class of it

    return setup
