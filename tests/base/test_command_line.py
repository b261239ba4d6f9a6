import functools
import importlib.machinery
import subprocess
import sys
import types
from pathlib import Path

import pytest

from inheritune_lit.__main__ import COMMANDS, main
from inheritune_lit.base.command_line import given_command


def test_imports_are_light() -> None:
    """No command pays for torch or litGPT before it needs them."""
    modules = ", ".join({place.split(":")[0] for place, _ in COMMANDS.values()})
    check = f"import sys, {modules}; print([m for m in ('torch', 'litgpt', 'datatrove', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inheritune_lit", command, "--help"], capture_output=True, text=True, check=True
    )
    assert f"usage: inheritune {command}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_without_arguments(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It begins, as `inheritune demo` does, or says what it needs."""
    place, name = COMMANDS[command][0].split(":")
    module, calls = importlib.import_module(place), []
    if callable(function := getattr(module, name)):
        monkeypatch.setattr(module, name, functools.wraps(function)(lambda **_: calls.append(command)))
    if command in ("demo", "grow-demo"):
        main([command])
        assert calls == [command]
    else:
        with pytest.raises(SystemExit) as stop:
            main([command])
        assert stop.value.code == 2
        assert f"usage: inheritune {command}" in (said := capsys.readouterr().err)
        assert "error: " in said
        assert calls == []


def test_overview_and_unknown_command() -> None:
    done = subprocess.run([sys.executable, "-m", "inheritune_lit"], capture_output=True, text=True, check=True)
    assert "surgery" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "inheritune_lit", "sugery"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no command 'sugery'. The commands are: surgery, verify" in done.stderr


@pytest.mark.parametrize("config", [False, True])
def test_a_value_that_is_none_of_a_few(config: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").write_text("verify: hash\n")
    given = ["--config", str(tmp_path / "settings.yaml")] if config else ["--verify=hash"]
    with pytest.raises(SystemExit):
        main(["pretrain", *given, "recipe.yaml"])
    assert 'key "verify":\n  Expected one of {sizes,full}.' in capsys.readouterr().err


def test_flags_may_stand_without_a_value() -> None:
    from inheritune_lit.base.command_line import _spell_out_flags

    def command(dry_run: bool = False, check_finite: bool = True, name: str = "") -> None: ...

    given = ["--dry_run", "--no-check_finite", "--name", "x", "--check_finite", "false"]
    expected = ["--dry_run=true", "--check_finite=false", "--name", "x", "--check_finite", "false"]
    assert _spell_out_flags(command, given) == expected
    assert _spell_out_flags(command, []) == []


def test_several_values_make_a_list() -> None:
    from inheritune_lit.base.command_line import _join_list

    def command(runs: list[str], out_dir: str = "", overwrite: bool = False) -> None: ...
    def other(run: str, out_dir: str = "") -> None: ...

    given = ["a", "--overwrite=true", "b", "--out_dir", "c", "d"]
    assert _join_list(command, given) == ["--overwrite=true", "--out_dir", "c", '["a", "b", "d"]']
    assert _join_list(command, ["--help"]) == ["--help"]
    assert _join_list(other, given) == given


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m inheritune_lit recipes list | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("recipe")
    assert done.stderr == ""


def test_subcommands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inheritune_lit", "recipes", "copy", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: inheritune recipes" in done.stdout
    assert "out_dir" in done.stdout


def test_the_command_that_was_given_is_noted_as_one_would_type_it(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["/bin/inheritune", "surgery", "a folder", "--layers", "2"])
    assert given_command() == "inheritune surgery 'a folder' --layers 2"
    main.__spec__ = importlib.machinery.ModuleSpec("inheritune_lit.surgery.__main__", None)
    monkeypatch.setattr(sys, "argv", ["/src/surgery/__main__.py", "source"])
    assert given_command() == "python -m inheritune_lit.surgery source"
