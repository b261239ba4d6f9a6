"""README and docs: what they link to is there, and every command in them is one that can be given."""

import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers.models import ROOT

from inheritune_lit.__main__ import COMMANDS

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "recipes/README.md",
    ROOT / "recipes/CONTRIBUTING.md",
]
MADE = ("checkpoints/", "data/", "out/", "small-llama", "ORG/small-llama", "demo/")  # by the commands themselves


def commands(page: Path) -> list[str]:
    """Lines of ```bash and indented blocks that begin with a program of ours, litGPT's or make; comments left out."""
    text = page.read_text().replace("\\\n", " ")
    lines = [line.strip() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [
        line.partition("  #")[0] for line in lines if re.match(r"(inheritune|litgpt|hf download|make|python -m) ", line)
    ]


def function_of(name: str, rest: list[str]) -> Any:
    """What a command calls, and what is left of the words."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    function = getattr(import_module(module), attribute)
    return (function[rest[0]], rest[1:]) if isinstance(function, dict) else (function, rest)


GIVEN = [(page.name, command) for page in PAGES for command in commands(page)]


def test_there_are_commands() -> None:
    assert len(GIVEN) > 20
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


@pytest.mark.parametrize(("page", "command"), GIVEN, ids=[f"{page}: {command}" for page, command in GIVEN])
def test_command_can_be_given(page: str, command: str) -> None:
    program, *words = shlex.split(command)
    for word in words:  # recipes are there; the rest is made by commands above
        if word.startswith("recipes/") and not word.endswith("NAME.yaml"):
            assert (ROOT / word).exists(), word
        assert "/" not in word or word.startswith(("recipes/", *MADE)) or word == "openlm-research/open_llama_3b", word
    flags = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    if program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()
    elif program == "inheritune":
        function, _ = function_of(words[0], words[1:])
        assert set(flags) <= {*inspect.signature(function).parameters, "config"}
    elif words[0] == "pretrain":
        from litgpt.pretrain import setup

        assert set(flags) <= {*inspect.signature(setup).parameters, "config"}
    else:
        assert program == "hf"
        assert (words[0], flags) in (("download", ["local-dir"]), ("upload", []))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link
