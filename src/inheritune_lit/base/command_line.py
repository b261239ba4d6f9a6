"""A command line out of a function's signature and docstring."""

import errno
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_origin

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.paths import in_full, with_paths

# what is wrong with a disk, a network or with rights, not with us
MENDABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ENOTCONN, errno.ESHUTDOWN),
)


def run(function: Any, prog: str, argv: Sequence[str] | None = None) -> Any:
    """Makes a command line of a function's signature and docstring, as litGPT does, and calls it.

    A dict of functions makes subcommands: `inheritune recipes list`. A mistake of the user (InheritError) ends in one
    readable message and exit code 1, not in a traceback.
    """
    from jsonargparse import ArgumentParser, auto_cli, set_parsing_settings

    from inheritune_lit.base.piecewise import by_pieces

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            # what jsonargparse 4.41 says of a value that is none of a Literal's
            asked = next((a.metavar for a in self._actions if f'key "{a.dest}"' in message), None)
            message = message.replace(
                "Cannot take a Union of no types", f"Expected one of {asked or 'the values above'}"
            )
            super().error(message, ex)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    by_pieces()
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        _check_repeated(args)
    except InheritError as error:
        sys.exit(f"{prog}: error: {error}")
    called = function if not isinstance(function, dict) else function.get(args[0] if args else "")
    args = _join_list(called, _spell_out_flags(called, args)) if called else args
    expanding = {k: with_paths(f) for k, f in function.items()} if isinstance(function, dict) else with_paths(function)
    try:
        return auto_cli(expanding, args=args, prog=prog, parser_class=Parser)
    except InheritError as error:
        sys.exit(f"{prog}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{prog}: interrupted")
    except BrokenPipeError:  # who reads our output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        sys.exit(
            f"{prog}: error: {error.strerror}: {error.filename or 'a file that was being read or written'}. What was "
            "whole before is whole still: mend that, and give the same command again."
        )


def given_command() -> str:
    """The command that this process was started with, as one would type it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join([*program, *sys.argv[1:]])


def _spell_out_flags(function: Callable[..., Any], argv: list[str]) -> list[str]:
    """`--dry_run` → `--dry_run=true`, `--no-check_finite` → `--check_finite=false`.

    jsonargparse knows booleans only with a value; both spellings are accepted.
    """
    names = [name for name, p in inspect.signature(function).parameters.items() if p.annotation is bool]
    spelt = {f"--{name}": f"--{name}=true" for name in names}
    spelt |= {f"--no-{name}": f"--{name}=false" for name in names}
    spelt |= {f"--no_{name}": f"--{name}=false" for name in names}
    values = [value.lower() in ("true", "false") for value in argv[1:]]  # whether the next one is the flag's value
    return [arg if has_value else spelt.get(arg, arg) for arg, has_value in zip(argv, [*values, False], strict=False)]


def _check_repeated(argv: Sequence[str]) -> None:
    """Of two equal keys in a `--config` file, YAML and jsonargparse take the last in silence.

    Raises:
        InheritError: naming the keys that stand more than once.
    """
    from inheritune_lit.base.yaml_document import read_document

    for arg, following in pairwise([*argv, ""]):
        name, _, value = arg.partition("=")
        if name != "--config":
            continue
        path = Path(in_full(value or following))
        if path.is_file() and (repeated := read_document(path).repeated):
            keys = ", ".join(f"{key} (line {line})" for key, line in repeated.items())
            raise InheritError(f"{path} has keys that stand more than once: {keys}. Keep one of them.")


def _join_list(function: Callable[..., Any], argv: list[str]) -> list[str]:
    """`a b --out_dir c` → `--out_dir c ["a", "b"]` for a function whose first parameter is a list.

    jsonargparse takes such a list as one value only.
    """
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or get_origin(first.annotation) is not list or first.default is not first.empty:
        return argv
    values: list[str] = []
    options: list[str] = []
    takes_value = False
    for arg in argv:
        is_option = arg.startswith("-") or takes_value
        (options if is_option else values).append(arg)
        takes_value = arg.startswith("--") and "=" not in arg
    return [*options, json.dumps(values)] if values else options
