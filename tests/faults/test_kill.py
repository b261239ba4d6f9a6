"""kill -9 at random moments, the same command again: it ends with the same bytes as if nothing had happened."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.faults import Fault, contents
from helpers.injecting import ended, inheritune, kill, kill_after, moments
from helpers.models import TEXTS, make_checkpoint, write_bpe
from helpers.small_runs import DEMO, TRAIN, make_recipe, recipe_to_kill, same_state, trainings

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.pretrain.resume import check
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.runs.folder import read_run
from inheritune_lit.verify import verify

faults_long = pytest.mark.faults_long


SURGERIES = """
import os, signal, sys, time
from pathlib import Path
import litgpt.model, litgpt.utils, torch._subclasses.fake_tensor  # paid for once, before the forks
from inheritune_lit.surgery.command import surgery
source, target = map(Path, sys.argv[1:])
for line in sys.stdin:
    layers, seconds = line.split()
    if (child := os.fork()) == 0:
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        surgery(source, layers=layers, out_dir=target, overwrite=True)
        os._exit(0)
    began, ended = time.monotonic(), False
    while time.monotonic() < began + float(seconds) and not ended:
        ended = os.waitpid(child, os.WNOHANG)[0] != 0
        time.sleep(0.0005)
    duration = time.monotonic() - began
    if not ended:
        os.kill(child, signal.SIGKILL)
        ended = not os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(f"ended {duration}" if ended else "killed", flush=True)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=faults_long)])
def test_surgery(tmp_path: Path, fault: Fault, kills: int) -> None:
    """An old target is there, to be replaced: at any moment the folder is the old one or the new one, whole."""
    size = {"n_embd": 256, "n_head": 8, "n_query_groups": 8, "intermediate_size": 512}
    source = make_checkpoint(tmp_path / "source", **size, vocab_size=4096, padded_vocab_size=4096)
    target, other = tmp_path / "target", tmp_path / ".target.old"
    command = [sys.executable, "-W", "ignore", "-c", SURGERIES, source, target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def surgery(layers: int, seconds: float) -> str:
            process.stdin.write(f"{layers} {seconds}\n")  # type: ignore[union-attr]
            return process.stdout.readline()  # type: ignore[union-attr]

        states, duration = {}, 0.0
        for layers in (3, 5):
            said = surgery(layers, 600)
            assert said.startswith("ended")
            states[layers], duration = weights_of(target), float(said.split()[1])
        killed = 0
        for moment in moments(1, 20 * kills, 1.1 * duration):
            before = weights_of(target)
            with fault(source):
                killed += surgery(3 if before == states[5] else 5, moment) == "killed\n"
                assert weights_of(target if target.exists() else other) in states.values()
            if killed == kills:
                break
        assert killed == kills
        for layers in (3, 5):  # whatever it left, the next one works
            assert surgery(layers, 600).startswith("ended")
            assert weights_of(target) == states[layers]
        process.stdin.close()
    verify(target, source=source)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}


def weights_of(target: Path) -> str:
    """All files of a target but its receipt, in which the command's time and place may stand."""
    files = {path.name: data for path, data in contents(target).items() if path.name != "inheritance.json"}
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


LONGEST_TASK = 1.0  # seconds of work before a kill: about a task's


def written_since_now(folder: Path) -> Callable[[], bool]:
    """Whether a command that is started now has come so far as to write into a folder that may be there already."""
    now = time.time()

    def written() -> bool:
        with suppress(OSError):  # what is there comes and goes
            return any(path.lstat().st_mtime > now for path in folder.rglob("*"))
        return False

    return written


def logged_since_now(log: Path) -> Callable[[], bool]:
    """Whether a training that is started now has logged a step."""
    size = log.stat().st_size if log.exists() else 0
    return lambda: log.exists() and b"step " in log.read_bytes()[size:]


@pytest.mark.parametrize("kills", [pytest.param(10, marks=faults_long)])
def test_prepare(tmp_path: Path, fault: Fault, kills: int) -> None:
    """One folder, killed again and again, its launcher, its workers or all of them; finished tasks stay as they are."""
    tokenizer = write_bpe(tmp_path / "bpe")
    (tmp_path / "text").mkdir()
    for i in range(12):
        documents = [f'{{"text": "{i} {n} {TEXTS[0]}"}}\n' for n in range(6000)]
        (tmp_path / f"text/{i:02}.jsonl").write_text("".join(documents))
    options = ["--tokenizer_dir", tokenizer, "--val_share", "0.1", "--workers", "2"]
    calm = ended(inheritune("prepare", tmp_path / "text", "--out_dir", tmp_path / "calm", *options))
    assert calm.returncode == 0, calm.stderr
    command = inheritune("prepare", tmp_path / "text", "--out_dir", tmp_path / "tokens", *options)
    staging, tokens, killed = tmp_path / ".tokens.staging", tmp_path / "tokens", 0
    for moment in moments(2, 10 * kills, LONGEST_TASK):
        done = [path for path in staging.glob(".work/completions/*") if path.is_file()]
        shards = contents(*(shard for marker in done for shard in staging.glob(f"*/*/{marker.name}.ds*")))
        with fault(tmp_path / "text", tokenizer):
            killed += kill_after(command, moment, started=written_since_now(staging), group=killed % 2 == 1)
        for shard, data in shards.items():
            there = shard if shard.exists() else tokens / shard.relative_to(staging)
            assert there.read_bytes() == data, "a finished task's shard"
        if killed == kills or tokens.exists():
            break
    last = ended(command)
    assert last.returncode == 0, last.stderr
    ours, theirs = (
        {path.relative_to(folder): data for path, data in contents(folder).items() if path.name != "manifest.json"}
        for folder in (tmp_path / "tokens", tmp_path / "calm")
    )
    assert ours == theirs
    assert len(ours) >= 24
    splits = [read_json(tmp_path / name / "manifest.json", "manifest")["splits"] for name in ("tokens", "calm")]
    assert splits[0] == splits[1]
    assert killed >= kills // 2


def whole_checkpoints(run: Path, recipe: dict[str, Any]) -> list[Path]:
    """The checkpoints of a run that are committed: whole, so that it may go on from them."""

    def whole() -> Iterator[Path]:
        for folder in sorted(run.glob("step-*"))[-GUARDED:]:
            try:
                yield check(folder / WEIGHTS, Recipe.of(recipe).config, recipe["train"]).path
            except InheritError:
                continue

    return list(whole())


# Seconds of training before a kill; checkpoints that are compared byte by byte, the newest: a real model's fill memory
LONGEST, GUARDED = (60, 2) if DEMO in os.environ else (1.5, 1000)


@pytest.mark.parametrize("kills", [pytest.param(20, marks=faults_long)])
def test_training(tmp_path: Path, fault: Fault, kills: int) -> None:
    """The launcher, the training or both: while it loads, in a step, and while a checkpoint is being saved."""
    recipe = recipe_to_kill(tmp_path, steps=400)
    path, run = tmp_path / "recipe.yaml", tmp_path / "killed"
    path.write_text(yaml.dump(recipe))
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, str(path)]
    calm = ended([*command, tmp_path / "calm"])
    assert calm.returncode == 0, calm.stderr
    chosen, killed, finished = random.Random(3), 0, 0
    parents = [Path(recipe[key]) for key in ("initial_checkpoint_dir", "tokenizer_dir") if recipe[key]]
    while killed < kills:
        victim, loading = chosen.choice(["launcher", "training", "both"]), chosen.random() < 0.2
        seconds = chosen.uniform(0, 5 if loading else LONGEST)
        log, steps = run / "pretrain.log", (run / "pretrain.log").stat().st_size if run.exists() else 0
        with fault(*parents, *whole_checkpoints(run, recipe)):
            with subprocess.Popen([*command, str(run)], stderr=subprocess.PIPE, start_new_session=True) as process:
                while process.poll() is None and not (
                    (log.exists() and b"step " in log.read_bytes()[steps:]) or (loading and trainings(run))
                ):
                    time.sleep(0.01)
                deadline = time.monotonic() + seconds
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.002)
                pids = trainings(run)
                if victim != "launcher" and pids:
                    with suppress(ProcessLookupError):
                        os.kill(pids[0], 9)
                if victim != "training" or not pids:
                    kill(process)
                assert process.stderr is not None
                said = process.stderr.read().decode()
            assert process.returncode in (-9, 1, 0)
            if process.returncode == 1:
                assert "killed by SIGKILL" in said
                assert "The same command" in said
        killed += process.returncode != 0
        if process.returncode == 0:  # it ended before its kill: another one
            assert same_state(run, tmp_path / "calm")
            finished += 1
            shutil.rmtree(run)
    last = ended([*command, run])
    assert last.returncode == 0, last.stderr
    assert same_state(run, tmp_path / "calm")
    ours, theirs = (read_run(folder).curves["training"] for folder in (run, tmp_path / "calm"))
    assert ours == [(step, tokens, pytest.approx(loss, abs=1e-3)) for step, tokens, loss in theirs]
    # negative control: an earlier checkpoint of the same run is another state
    saved = sorted((tmp_path / "calm").glob("step-*"))[-2]
    weights = [torch.load(f / WEIGHTS, weights_only=True)["model"] for f in (saved, run / "final")]
    assert not any(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    print(f"{killed} kills, {finished + 1} runs, {len(read_run(run).receipt['launches'])} launches of the last")


@pytest.mark.parametrize("kills", [pytest.param(5, marks=faults_long)])
def test_growth(tmp_path: Path, fault: Fault, kills: int) -> None:
    """Killed in the reference, in surgery, in a target or while losses are measured; ends with the same losses."""
    recipe = make_recipe(tmp_path, steps=200, layers=4) | {"initial_checkpoint_dir": None}
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    options = ["--compile=false", "--start_layers=2", "--max_layers=2"]
    command = inheritune("grow", tmp_path / "recipe.yaml", "--out_dir")
    calm = ended([*command, tmp_path / "calm", *options])
    assert calm.returncode == 0, calm.stderr
    stages, killed, out = read_json(tmp_path / "calm/growth.json", "ledger")["stages"], 0, tmp_path / "killed"
    for i, moment in enumerate(moments(4, kills, 0.5)):
        measuring = (out / "reference/run.json").exists
        stage = "reference" if i < 2 else "n2"
        started = measuring if i == 2 else logged_since_now(out / stage / "pretrain.log")
        with fault(tmp_path / "tokens", *(folder for folder in out.glob("*/model") if folder.is_dir())):
            killed += kill_after([*command, str(out), *options], moment, started=started)
    last = ended([*command, out, *options])
    assert last.returncode == 0, last.stderr
    again = read_json(out / "growth.json", "ledger")["stages"]
    for name in ("reference", "n2"):
        for key in ("validation_loss", "fingerprint", "decision"):
            assert again[name].get(key) == stages[name].get(key), (name, key)
        assert same_state(out / name, tmp_path / "calm" / name)
    assert killed >= kills - 1
