"""Two processes into one folder, and processes that die: of a loader, or the launcher of a training that lives on."""

import functools
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from helpers.faults import Fault, contents
from helpers.injecting import ended, inheritune
from helpers.models import TEXTS, write_bpe
from helpers.small_runs import TRAIN, make_recipe, same_state, trainings

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import locked
from inheritune_lit.grow import grow
from inheritune_lit.pretrain import launch, train
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify


def test_two_surgeries_into_one_folder(llama: Path, tmp_path: Path, fault: Fault) -> None:
    """Six at once, of six different targets: one of them is there, whole; the others were refused."""
    problems: list[str] = []

    def run(blocks: int) -> None:
        try:
            surgery(llama, layers=str(blocks), out_dir=tmp_path / "target")
        except InheritError as error:
            problems.append(str(error))

    with fault(llama):
        threads = [threading.Thread(target=run, args=(blocks,)) for blocks in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(problems) == 5
        assert all(re.search("Another process is writing|exists already", problem) for problem in problems), problems
    verify(tmp_path / "target", source=llama)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_two_growths_into_one_folder(tmp_path: Path, fault: Fault) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.dump(make_recipe(tmp_path, 4) | {"initial_checkpoint_dir": None}))
    with locked(tmp_path / "out"), fault(tmp_path / "tokens"):
        with pytest.raises(InheritError, match="Another process is writing"):
            grow(tmp_path / "recipe.yaml", out_dir=tmp_path / "out", start_layers=1)
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.faults_long
def test_two_preparations_into_one_folder(tmp_path: Path, fault: Fault) -> None:
    """Two commands, started at once: one does it, the other is refused or finds it done."""
    (tmp_path / "text").mkdir()
    for i in range(3):
        (tmp_path / f"text/{i}.jsonl").write_text("".join(f'{{"text": "{n} {TEXTS[0]}"}}\n' for n in range(2000)))
    options = ["--tokenizer_dir", write_bpe(tmp_path / "bpe"), "--val_share", "0.2", "--workers", "1", "--out_dir"]
    command = inheritune("prepare", tmp_path / "text", *options)
    assert ended([*command, tmp_path / "alone"]).returncode == 0
    with fault(tmp_path / "text", tmp_path / "alone"):
        both = [subprocess.Popen([*command, tmp_path / "tokens"], stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate()[1] for process in both]
        assert 0 in (both[0].returncode, both[1].returncode), said
        for process, text in zip(both, said, strict=True):
            assert process.returncode == 0 or "Another process is writing" in text, text
    shards = [
        {file.relative_to(folder): data for file, data in contents(folder).items() if file.suffix == ".ds"}
        for folder in (tmp_path / "alone", tmp_path / "tokens")
    ]
    assert shards[0] == shards[1]


@pytest.mark.faults_long
def test_second_launch_and_a_loaders_worker_that_dies(
    tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second launch of a run is refused, and the first goes on. Then its data worker is killed with -9.

    The training ends with an error, not on fewer data; the same command ends as if nothing had happened.
    """
    recipe = make_recipe(tmp_path, 600)
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.dump(recipe))
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, str(path)]
    assert ended([*command, tmp_path / "calm"]).returncode == 0
    monkeypatch.setattr(launch, "run_lock", functools.partial(launch.run_lock, wait=0.3))
    with (
        fault(tmp_path / "tokens"),
        subprocess.Popen([*command, str(run)], stderr=subprocess.PIPE, text=True) as process,
    ):
        while not (run / "pretrain.log").exists() or "step 12 " not in (run / "pretrain.log").read_text():
            assert process.poll() is None
            time.sleep(0.01)
        with fault(run / "step-00000010"), pytest.raises(InheritError, match="is in use: another launch"):
            train(recipe, run)
        assert process.poll() is None
        main, *workers = trainings(run)
        assert workers, f"{main} reads by itself"
        os.kill(workers[-1], 9)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1
    assert "DataLoader worker" in said
    assert "The same command resumes after step-" in said
    saved = sorted(run.glob("step-*/lit_model.pth"))
    with fault(*saved[:-1]):
        assert ended([*command, run]).returncode == 0
    assert same_state(run, tmp_path / "calm")
