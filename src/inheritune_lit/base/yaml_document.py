"""A YAML file with the line of each key, and the keys that stand more than once."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.base.errors import InheritError


class Loader(yaml.SafeLoader):
    """Reads 3e-4 and 8e9 as numbers, as litGPT's parser does and YAML 1.1 does not."""

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}  # noqa: RUF012


Loader.add_implicit_resolver(
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
        loader = Loader(path.read_text(encoding="utf-8"))
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
