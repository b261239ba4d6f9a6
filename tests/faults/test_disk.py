"""A full disk, and one that may not be written: the old state stays usable, and the same command goes on with room."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers.faults import Fault, contents
from helpers.injecting import NOBODY, SmallDisk, ended, needs_mount, needs_root, public_folder
from helpers.models import TEXTS, make_checkpoint, write_bpe
from helpers.small_runs import TRAIN, make_recipe, same_state

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.grow.ledger import Ledger
from inheritune_lit.prepare.command import prepare
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

PLENTY = SimpleNamespace(free=2**40)


@needs_mount
def test_surgery(llama: Path, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    with SmallDisk(tmp_path / "disk", 220) as disk:
        target = disk.path / "target"
        surgery(llama, layers="1", out_dir=target)
        for seen, problem in ((True, r"its disk has \S+ free"), (False, "the disk is full")):
            if not seen:  # as with a quota, or when another process takes the room meanwhile
                monkeypatch.setattr("inheritune_lit.surgery.command.shutil.disk_usage", lambda place: PLENTY)
            with fault(target), pytest.raises(InheritError, match=problem):
                surgery(llama, layers="6", out_dir=target, overwrite=True)
            assert [path.name for path in disk.path.iterdir()] == ["target"], "no litter on a full disk"
        verify(target, source=llama)
        disk.grow(1000)
        surgery(llama, layers="6", out_dir=target, overwrite=True)
        verify(target, source=llama)


@needs_mount
def test_prepare(tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    """Finished tasks are kept; with more room, the same command goes on to the same bytes as on a large disk."""
    tokenizer, text = write_bpe(tmp_path / "bpe"), tmp_path / "text"
    text.mkdir()
    options: dict[str, Any] = {"tokenizer_dir": tokenizer, "val_share": 0.2, "workers": 1}
    with SmallDisk(tmp_path / "disk", 120) as disk:
        (text / "0.jsonl").write_text("".join(f'{{"text": "{n} {TEXTS[0]}"}}\n' for n in range(30)))
        prepare(str(text), out_dir=disk.path / "tokens", **options)
        for i in range(1, 4):
            lines = [f'{{"text": "{i} {n} {TEXTS[0]}"}}\n' for n in range(1000)]
            (text / f"{i}.jsonl").write_text("".join(lines))
        with fault(disk.path / "tokens", text), pytest.raises(InheritError, match="No room for"):
            prepare(str(text), out_dir=disk.path / "tokens", overwrite=True, **options)
        # what is done, on another disk
        shutil.copytree(disk.path / ".tokens.staging", tmp_path / "elsewhere/.tokens.staging")
        prepare(str(text), out_dir=tmp_path / "elsewhere/tokens", **options)
        assert "Resuming: " in capsys.readouterr().out
        disk.grow(10_000)
        shutil.rmtree(disk.path / "tokens")
        prepare(str(text), out_dir=disk.path / "tokens", **options)  # goes on in the staging folder
        prepare(str(text), out_dir=tmp_path / "large", **options)
        shards = [
            {file.relative_to(folder): data for file, data in contents(folder).items() if file.suffix != ".json"}
            for folder in (disk.path / "tokens", tmp_path / "large", tmp_path / "elsewhere/tokens")
        ]
    assert shards[0] == shards[2]
    assert shards[0] == shards[1]
    assert len(shards[0]) >= 12


@needs_mount
def test_growths_ledger(tmp_path: Path, fault: Fault) -> None:
    with SmallDisk(tmp_path / "disk", 40) as disk:
        ledger = Ledger(disk.path / "out", {"tolerance": 0.0})
        ledger.begin("n2", {"blocks": 2}, {"train": {}}, {"data": "ab"})
        disk.fill()
        with fault(ledger.path), pytest.raises(OSError, match="No space left"):
            ledger.finish("n2", {"losses": [0.1] * 10_000})
        assert Ledger(disk.path / "out", {"tolerance": 0.0}).stages["n2"]["state"] == "begun"


@needs_mount
def test_disk_that_is_full_from_the_start(
    tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a recipe can be frozen: the command says so, in a line."""
    recipe = make_recipe(tmp_path, 4)
    with SmallDisk(tmp_path / "disk", 40) as disk:
        (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe | {"out_dir": str(disk.path / "run")}))
        disk.fill()
        monkeypatch.setattr("inheritune_lit.pretrain.disk_and_memory._disk", lambda *_: [])  # it would see it coming
        with fault(tmp_path / "tokens"), pytest.raises(SystemExit) as info:
            main(["pretrain", str(tmp_path / "recipe.yaml")])
    assert "inheritune pretrain: error: No space left on device" in str(info.value.code)
    assert "give the same command again" in str(info.value.code)


@needs_mount
@pytest.mark.faults_long
def test_training(tmp_path: Path, fault: Fault) -> None:
    """Room for three checkpoints of five: those that are whole stay, and the run goes on from them with more room."""
    recipe = make_recipe(tmp_path, 50)
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, tmp_path / "recipe.yaml"]
    assert ended([*command, tmp_path / "calm"]).returncode == 0
    size = next((tmp_path / "calm").glob("step-*/lit_model.pth")).stat().st_size // 1024
    with SmallDisk(tmp_path / "disk", 3 * size + size // 2) as disk:
        again = disk.inside([*command, tmp_path / "disk/run"])
        run = disk.path / "run"
        with fault(tmp_path / "tokens"):
            full = ended(again)
            assert full.returncode == 1
            assert "No space left on device" in full.stderr
        whole = [run / f"step-{step:08d}/lit_model.pth" for step in (10, 20)]
        with fault(*whole):
            full = ended(again)
            assert full.returncode == 1
            assert "No space left on device" in full.stderr
        disk.grow(20 * size)
        with fault(*whole):
            last = ended(again)
            assert last.returncode == 0, last.stderr
        assert same_state(run, tmp_path / "calm")


NOBODYS = """
import sys
place = sys.argv[1]
from inheritune_lit.__main__ import main
commands = {
    "surgery": ["surgery", f"{place}/source", "--layers", "1", "--out_dir"],
    "prepare": ["prepare", f"{place}/text", "--tokenizer_dir", f"{place}/bpe", "--val_share", "0.3", "--out_dir"],
    "pretrain": ["pretrain", f"{place}/recipe.yaml", "--out_dir"],
    "grow": ["grow", f"{place}/growth.yaml", "--start_layers=1", "--max_layers=1", "--compile=false", "--out_dir"],
}
for name, command in commands.items():
    for where in ("new", f"theirs/{name}"):
        try:
            main([*command, f"{place}/{where}"])
        except SystemExit as error:
            print(f"\\n@ {name} {where}: {error.code}")
"""


@needs_root
@pytest.mark.faults_long
def test_read_only_output_as_an_unprivileged_user(fault: Fault) -> None:
    """In a folder that may not be written to, and in somebody else's: an error that says so, and all stays."""
    with public_folder() as place:
        recipe = make_recipe(place, 4)
        (place / "recipe.yaml").write_text(yaml.dump(recipe | {"out_dir": f"{place}/run"}))
        (place / "growth.yaml").write_text(yaml.dump(recipe | {"initial_checkpoint_dir": None}))
        make_checkpoint(place / "source")
        write_bpe(place / "bpe")
        for name in ("surgery", "prepare", "pretrain", "grow"):
            (place / "theirs" / name).mkdir(parents=True)
        command = [*NOBODY, sys.executable, "-W", "ignore", "-c", NOBODYS, str(place)]
        environment = os.environ | {"HOME": "/nonexistent", "MPLCONFIGDIR": "/tmp"}
        with fault(place):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
        said = dict(line[2:].split(": ", 1) for line in done.stdout.splitlines() if line.startswith("@ "))
        assert len(said) == 8, done.stdout
        for where, message in said.items():
            if where in ("surgery theirs/surgery", "prepare theirs/prepare"):
                assert "Can't write" in message
            elif where.startswith("pretrain"):  # its preflight has printed what it found
                assert message == "1"
            else:
                assert "Can't write" in message or "Permission denied" in message, (where, message)
        assert "can't be written to" in done.stdout
        assert "Traceback" not in done.stderr
