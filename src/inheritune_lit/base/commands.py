"""Commands of ours and of others, run as a user would type them, and printed before they run."""

import os
import shlex
import subprocess
import sys

from inheritune_lit.base.errors import InheritError


def run_module(module: str, *args: object, name: str = "", **environment: str) -> None:
    """Runs `python -m module args` with this interpreter, and prints it as one would type it: `name args`.

    Raises:
        InheritError: it failed; what it printed tells why.
    """
    command = shlex.join([name or module, *map(str, args)])
    print(f"  $ {' '.join([*(f'{key}={value}' for key, value in environment.items()), command])}", flush=True)
    python = [sys.executable, "-m", module, *map(str, args)]
    code = subprocess.run(python, check=False, env={**os.environ, **environment}).returncode
    if code:
        raise InheritError(f"`{command}` failed with exit code {code}: see above.")


def inheritune(*args: object, **environment: str) -> None:
    """One of our commands, by `run_module`."""
    run_module("inheritune_lit", *args, name="inheritune", **environment)
