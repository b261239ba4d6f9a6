"""Paths as people write them into a file, where no shell has looked at them: `~`, `$HOME`, a line break at the end."""

import os
import re
from functools import wraps
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError


def problem_of(path: str) -> str | None:
    """What of a path would be taken literally, and was hardly meant so; None if nothing, or if it is there."""
    if "\0" in path or re.search(r"[\r\n]", path):
        return "has a line break or a NUL in it"
    if os.path.lexists(path):
        return None
    if not path:
        return "is empty"
    if path != path.strip():
        return "begins or ends with a blank"
    if path.startswith("~"):
        return "begins with ~, which only a shell replaces"
    if variable := re.search(r"\$\{?[A-Za-z_]\w*\}?", path):
        return f"has {variable[0]} in it, which only a shell replaces"
    return None


def meant(path: str) -> str:
    """A path with `~` and `~user` for the folder that a shell puts there.

    Raises:
        InheritError: there is no such user, or something else in it would be taken literally.
    """
    if problem := problem_of(path if "\0" in path else in_full(path)):
        raise InheritError(f"The path {path!r} {problem}. Write it out in full.")
    return in_full(path)


def in_full(path: str) -> str:
    """With the home of whoever `~` names, unless there is a folder of that name."""
    # not Path.expanduser(), which raises for a user that this machine does not know
    return path if os.path.lexists(path) else os.path.expanduser(path)  # noqa: PTH111


def with_paths(function: Any) -> Any:
    """A command whose paths have been through `meant`; also those that are strings, as they may be names or URLs."""

    def value_of(value: Any) -> Any:
        if isinstance(value, list):
            return [value_of(item) for item in value]
        if isinstance(value, Path):
            return Path(meant(str(value)))
        return meant(value) if isinstance(value, str) and value.startswith("~") else value

    @wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        return function(*args, **{name: value_of(value) for name, value in options.items()})

    return command
