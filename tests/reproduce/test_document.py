"""Locks are read like receipts: bounded, without code, and refused where they are not what was written."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.recipes import LOCKS, PRETRAIN

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.recipes.listing import shipped
from inheritune_lit.reproduce.bundle import Bundle
from inheritune_lit.reproduce.compare import compare
from inheritune_lit.reproduce.document import LARGEST, checksum, lock_of, read_lock
from inheritune_lit.reproduce.facts import exact, recipe_hashes

MAIN = shipped() / "openllama3b_n13.lock.yaml"


@pytest.mark.parametrize("recipe", PRETRAIN, ids=lambda path: path.stem)
def test_every_recipe_has_its_lock(recipe: Path) -> None:
    assert Bundle.read(recipe).name == recipe.stem


def test_every_lock_has_its_recipe() -> None:
    assert sorted(map(lock_of, PRETRAIN)) == LOCKS


def rewritten(path: Path, change: Any, *, stamped: bool = True) -> Path:
    content = yaml.safe_load(MAIN.read_text())
    change(content)
    if stamped:
        content["checksum"] = checksum(content)
    path.write_text(yaml.safe_dump(content))
    return path


def put(key: str, value: object) -> Any:
    def change(content: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for part in path:
            content = content[part]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", 2, "format 2, this version reads 1"),
        ("exact.extra", 1, "exact has the unknown key 'extra'"),
        ("first_steps.losses", {"1": "much"}, "first_steps.losses.1 is 'much'"),
        ("first_steps.untrained", float("nan"), "first_steps.untrained is nan"),
        ("exact.batches", {}, "exact.batches is {}"),
        ("whole_run.runs", True, "whole_run.runs is True"),
        ("status", "done", "status is 'done'"),
    ],
)
def test_what_no_lock_holds_is_named(tmp_path: Path, key: str, value: object, said: str) -> None:
    with pytest.raises(InheritError, match=said):
        read_lock(rewritten(tmp_path / "x.lock.yaml", put(key, value)))


def test_an_edit_by_hand_is_noticed(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "x.lock.yaml", put("inputs.reference.licence", "mit"), stamped=False)
    with pytest.raises(InheritError, match="was edited since it was written"):
        read_lock(path)


def test_nothing_that_blows_up_or_runs(tmp_path: Path) -> None:
    path = tmp_path / "x.lock.yaml"
    path.write_text("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    with pytest.raises(InheritError, match="aliases"):
        read_lock(path)
    path.write_text(f"made: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'ran'}]\n")
    with pytest.raises(InheritError):
        read_lock(path)
    assert not (tmp_path / "ran").exists()
    path.write_text("# " + "x" * LARGEST)
    with pytest.raises(InheritError, match="bytes, a lock has"):
        read_lock(path)
    path.write_text("format: 1\nformat: 1\n")
    with pytest.raises(InheritError, match="more than once: format"):
        read_lock(path)


def test_only_what_changes_batches_or_updates_changes_a_recipes_hashes() -> None:
    settings = read_document(shipped() / "openllama3b_n13.yaml").content
    before = recipe_hashes(settings)
    train, evaluated = settings["train"], settings["eval"]
    same: list[dict[str, Any]] = [
        {"out_dir": "elsewhere", "devices": 4, "initial_checkpoint_dir": "other"},
        {"precision": "32-true"},
        {"train": {**train, "micro_batch_size": 4}, "eval": {**evaluated, "max_iters": evaluated["max_iters"] // 2}},
    ]
    for change in same:
        assert recipe_hashes({**settings, **change}) == before, change
    others: dict[str, dict[str, Any]] = {
        "precision": {"precision": "bf16-true"},
        "seed": {"seed": 43},
        "train": {"train": {**train, "global_batch_size": 128}},
        "eval": {"train": {**train, "micro_batch_size": 4}},
        "optimizer": {"optimizer": {**settings["optimizer"], "class_path": "torch.optim.Adam"}},
    }
    for block, change in others.items():
        found = recipe_hashes({**settings, **change})
        assert {name for name in before if before[name] != found.get(name)} == {block}


def test_nobody_can_be_the_same_as_a_run_that_was_not_made() -> None:
    settings = read_document(shipped() / "openllama3b_n13.yaml").content
    verdict = compare(read_lock(MAIN), {"exact": exact(settings, {"start": {"fingerprint": "0" * 64}}, None)})
    assert verdict.result == "unknown"
    assert "not run" in str(verdict)
