"""A `litgpt pretrain` recipe as litGPT reads it, and as it stands in its file, with lines and repeated keys."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Loader, read_document

if TYPE_CHECKING:
    from jsonargparse import Namespace


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_recipe(path: Path) -> "Namespace":
    """The recipe as `litgpt pretrain` would take it: typed, with litGPT's defaults for what it leaves out.

    Raises:
        InheritError: litGPT's parser refuses it.
    """
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    from inheritune_lit.recipes.litgpt_settings import PACKED, data_settings, pretrain_setup

    data = read_document(path).get("data")
    name = PACKED.get(str(data.get("class_path"))) if isinstance(data, dict) else None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(pretrain_setup() if name else _imported_setup(), fail_untyped=False)
    try:
        settings = parser.parse_args(["--config", str(path)])
        if name:  # as the parser would do, if it imported the class
            of_data = ArgumentParser(exit_on_error=False)
            of_data.add_class_arguments(data_settings(name))
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
