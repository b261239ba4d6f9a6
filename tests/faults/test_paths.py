"""Paths as people write them into files: `~`, `$HOME`, line breaks; a run's state where bare weights are wanted."""

import functools
import importlib
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_origin

import pytest
import torch
import yaml
from helpers.faults import Fault
from helpers.models import make_checkpoint
from helpers.small_runs import make_recipe

from inheritune_lit.__main__ import COMMANDS, main
from inheritune_lit.base.command_line import run
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import staging
from inheritune_lit.data import PackedTokens
from inheritune_lit.evaluate.suites import read_suite
from inheritune_lit.recipes.check.validate import validate_file
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify


def commands() -> dict[str, Callable[..., Any]]:
    found = {}
    for command, (place, _) in COMMANDS.items():
        module, name = place.split(":")
        functions = getattr(importlib.import_module(module), name)
        found |= (
            {f"{command} {k}": f for k, f in functions.items()} if isinstance(functions, dict) else {command: functions}
        )
    return found


@pytest.mark.parametrize("name", commands())
def test_home_in_every_path_of_every_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    function, called = commands()[name], {}
    settings: dict[str, Any] = {}
    for key, parameter in inspect.signature(function).parameters.items():
        kind = str(parameter.annotation)
        if "Path" in kind or key in ("input_dir", "checkpoint", "suite"):
            settings[key] = [f"~/{key}"] if get_origin(parameter.annotation) is list else f"~/{key}"
        elif parameter.default is parameter.empty:
            settings[key] = "any"
    (tmp_path / "settings.yaml").write_text(yaml.dump(settings))
    recorder = functools.wraps(function)(lambda **options: called.update(options))
    run(recorder, "inheritune", ["--config", str(tmp_path / "settings.yaml")])
    for key, value in settings.items():
        if "~" in str(value):
            assert f"/home/someone/{key}" in str(called[key])
            assert "~" not in str(called[key])


LITERAL = {"$HOME/x": "which only a shell", "${OUT}/x": "which only a shell", "x\n": "a line break", "x ": "a blank"}
LITERAL |= {" x": "a blank", "a\0b": "a NUL", "~nobody-here/x": "which only a shell"}


@pytest.mark.parametrize("path", LITERAL)
def test_path_that_only_a_shell_would_mend(
    path: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.yaml").write_text(yaml.dump({"source_dir": str(llama), "layers": "2", "out_dir": path}))
    with fault(llama), pytest.raises(SystemExit) as info:
        main(["surgery", "--config", "settings.yaml"])
    assert LITERAL[path] in str(info.value.code)
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.yaml"]


def test_strange_names_that_are_there(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~old", "$x", "a "):
        shutil.copytree(llama, name)
        run(surgery, "inheritune", [name, "--layers=2", f"--out_dir=of{len(name)}{name[0] == 'a'}"])
    assert len(list(tmp_path.glob("of*"))) == 3


@pytest.mark.parametrize("out_dir", [".", "", ".."])
def test_the_folder_that_the_command_runs_in(out_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/precious").touch()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InheritError, match="the command runs in"), staging(Path(out_dir), overwrite=True):
        pass
    assert (tmp_path / "here/precious").exists()


def findings_of(tmp_path: Path, recipe: dict[str, Any]) -> dict[str, str]:
    """Key → what is said of it; errors only."""
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    said: dict[str, str] = {}
    for f in validate_file(tmp_path / "recipe.yaml")[0]:
        if f.severity == "error":
            said[f.key] = f"{said.get(f.key, '')}{f.problem} {f.fix}\n"
    return said


def test_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """litGPT would write to a folder named `~`: each key is refused with what to write."""
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = make_recipe(tmp_path, 4)
    assert not findings_of(tmp_path, recipe)
    for key in ("out_dir", "tokenizer_dir", "initial_checkpoint_dir", "data.init_args.data_path"):
        for path, full in {
            "~/x": "/home/someone/x",
            "$HOME/x": "/home/someone/x",
            "x\n": "x",
            "": "Name a folder",
        }.items():
            changed = yaml.safe_load(yaml.dump(recipe))
            *blocks, last = key.split(".")
            functools.reduce(dict.__getitem__, blocks, changed)[last] = path
            assert full in findings_of(tmp_path, changed)[key]
    (tmp_path / "run.yaml").write_text(yaml.dump(recipe | {"out_dir": "~/run"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["pretrain", "run.yaml"])
    assert not list(tmp_path.glob("~*"))


def test_data_module_and_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("~/tokens", "$DATA/tokens", "tokens\n"):
        with pytest.raises(InheritError, match="data_path .*Write it out in full"):
            PackedTokens(Path(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tasks").mkdir()
    line = "tasks: {piqa: {metric: acc, num_fewshot: 0, version: 1.0}}\n"
    (tmp_path / "suite.yaml").write_text(f"{line}task_dir: ~/tasks\n")
    assert read_suite(str(tmp_path / "suite.yaml")).task_dir == tmp_path / "tasks"
    (tmp_path / "suite.yaml").write_text(f"{line}task_dir: $HOME/tasks\n")
    with pytest.raises(InheritError, match="which only a shell replaces"):
        read_suite(str(tmp_path / "suite.yaml"))


def wrap(folder: Path, **more: Any) -> Path:
    """Makes a run's checkpoint of a bare one."""
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    torch.save({"model": state, **more}, folder / "lit_model.pth")
    return folder


STATE = {"optimizer": {"state": {}}, "iter_num": 4, "step_count": 2, "train_dataloader": {"consumed": 8}}


def test_start_at_a_runs_checkpoint(tmp_path: Path) -> None:
    """litGPT finds "unexpected keys: model" once it is on the GPU; the recipe's check names the folder to write."""
    recipe, out = make_recipe(tmp_path, 4), tmp_path / "run"

    def said(start: Path) -> str:
        return findings_of(tmp_path, recipe | {"initial_checkpoint_dir": str(start)}).get("initial_checkpoint_dir", "")

    final = wrap(make_checkpoint(out / "final", n_layer=2), **STATE)
    step = wrap(make_checkpoint(out / "step-00000002", n_layer=2))
    for folder in (final, step):
        assert "holds a run's state" in said(folder)
        assert f"`inheritune surgery {folder} --layers ::1 --out_dir NEW_DIR` writes" in said(folder)
    surgery(step, layers="::1", out_dir=tmp_path / "made")
    verify(tmp_path / "made", source=step)
    make_checkpoint(out / "model", n_layer=2)
    bare = make_checkpoint(out / "weights/00000002", n_layer=2)
    assert f"Write {out / 'model'}, the weights at the run's end" in said(final)
    assert f"Write {bare}, a copy of the weights alone" in said(step)
    assert f"holds no lit_model.pth. Write {out / 'model'}." in said(out)
    assert f"Write {bare}." in said(out / "weights")
    assert f"Name its folder: {final}" in said(final / "lit_model.pth")
    for folder in (out / "model", bare, tmp_path / "made"):
        assert not said(folder)
