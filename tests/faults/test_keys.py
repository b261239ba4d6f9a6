"""An unknown, a misspelt and a repeated key in every recipe there is: each is named before anything begins."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from helpers.faults import Fault
from helpers.models import ROOT
from helpers.recipes import COMMANDS, LOCKS, PRETRAIN, RECIPES

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.evaluate.suites import read_suite
from inheritune_lit.recipes.check.validate import check_document

OTHERS = [path for path in RECIPES if path not in PRETRAIN and path.parent.name in COMMANDS]
SUITES = sorted((ROOT / "recipes/eval").glob("*.yaml"))
NAMES = {"surgery": "surgery", "data": "prepare", "growth": "grow"}


def faulty(path: Path, tmp_path: Path, how: str) -> tuple[Path, list[str]]:
    """A copy of a recipe with a fault at its top and, if it has one, in its train block; and the keys that are it."""
    text = path.read_text()
    top = next(key for key, value in yaml.safe_load(text).items() if isinstance(value, str | int))
    line = next(line for line in text.splitlines() if line.startswith(f"{top}:"))
    if how == "unknown":
        key, inner, text = "no_such_setting", "no_such_setting", f"{text}\nno_such_setting: 1\n"
    elif how == "misspelt":
        key, inner = top[0] + top[2:], "max_nrom"
        text = text.replace(line, line.replace(top, key, 1))
    else:
        key, inner, text = top, "max_norm", f"{text}\n{line}\n"
    trains = "\ntrain:\n" in text
    (tmp_path / path.name).write_text(text.replace("\ntrain:\n", f"\ntrain:\n  {inner}: 1.0\n"))
    return tmp_path / path.name, [key, *([f"train.{inner}"] if trains else [])]


@cache
def errors(path: Path) -> set[str]:
    return {finding.key for finding in check_document(read_document(path)) if finding.severity == "error"}


@pytest.mark.parametrize("how", ["unknown", "misspelt", "repeated"])
@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.stem)
def test_pretrain_recipe(tmp_path: Path, fault: Fault, path: Path, how: str) -> None:
    """`inheritune recipes validate`, and the preflight of `inheritune pretrain`, which begins with the same checks."""
    copy, keys = faulty(path, tmp_path, how)
    assert len(keys) == 2
    with fault(path):
        found = {finding.key: finding for finding in check_document(read_document(copy))}
        assert set(keys) <= {key for key, finding in found.items() if finding.severity == "error"}, found
    if how == "misspelt":
        assert found["train.max_nrom"].fix == "Did you mean max_norm?"
    assert not set(keys) & errors(path), "negative control"


@pytest.mark.parametrize("how", ["unknown", "misspelt", "repeated"])
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_other_recipe(
    tmp_path: Path,
    fault: Fault,
    path: Path,
    how: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Recipes of surgery, prepare and grow: the command refuses, and has written nothing."""
    command = NAMES[path.parent.name]
    copy, (key,) = faulty(path, tmp_path, how)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with fault(path), pytest.raises(SystemExit) as info:
        main([command, "--config", str(copy)])
    said = f"{info.value.code}\n{capsys.readouterr().err}"
    assert key in said, said
    assert info.value.code != 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("how", ["unknown", "misspelt", "repeated"])
@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suite(tmp_path: Path, fault: Fault, path: Path, how: str) -> None:
    """The suites of `inheritune evaluate`."""
    text = path.read_text()
    copy = tmp_path / path.name
    copy.write_text(
        {
            "unknown": f"{text}\nno_such_setting: 1\n",
            "misspelt": text.replace("num_fewshot", "num_fewshots", 1),
            "repeated": re.sub(r"^(  \w+: \{.*)$", r"\1\n\1", text, count=1, flags=re.MULTILINE),
        }[how]
    )
    with fault(path), pytest.raises(InheritError, match="unknown keys|more than once"):
        read_suite(str(copy))
    read_suite(str(path))


def test_every_recipe_is_here() -> None:
    everything = [path for path in (ROOT / "recipes").rglob("*.yaml") if "tasks" not in path.parts]
    assert sorted([*PRETRAIN, *OTHERS, *SUITES, *LOCKS]) == sorted(everything)
