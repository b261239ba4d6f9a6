"""`litgpt pretrain` on two ranks, sharded by FSDP with gloo on the CPU (fsdp/sitecustomize.py), beside one device."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import ROOT, make_checkpoint, make_tokenizer
from helpers.small_runs import same_state
from helpers.two_ranks import BATCH, CLOSE, LENGTH, ON_CPU, STEPS, difference, weights_of, write_recipe

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.trace import step_losses
from inheritune_lit.export import parity, reload
from inheritune_lit.export.command import export_checkpoint
from inheritune_lit.pretrain import Options, preflight, train
from inheritune_lit.pretrain.command import summary
from inheritune_lit.runs.folder import RUN_RECIPE, TRACE, _read_log, read_run
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

HALF_WAY = "step-00000004"


class Ranks:
    """Processes that train together, one `litgpt pretrain` after the other: importing it takes longer than training."""

    def __init__(self, processes: "list[subprocess.Popen[str]]") -> None:
        self._processes = processes

    def pretrain(self, recipe: Path, run: Path, **more: Any) -> Path:
        """Trains to the recipe's end; a step's BATCH windows are two micro-batches a device. Returns `run`."""
        ranks = len(self._processes)
        options = {"out_dir": run, "devices": ranks, "train.micro_batch_size": BATCH // 2 // ranks} | more
        arguments = ["--config", str(recipe), *(f"--{name}={value}" for name, value in options.items())]
        for process in self._processes:
            assert process.stdin
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout
            said = [""]
            while said[-1] != "done\n":
                said.append(process.stdout.readline())
                assert said[-1], "".join(said)
        return run

    def resume(self, recipe: Path, checkpoint: Path, run: Path) -> Path:
        return self.pretrain(recipe, run, resume=checkpoint / WEIGHTS, initial_checkpoint_dir="null")


@contextmanager
def started(number: int) -> Iterator[Ranks]:
    """So many ranks; a single one is a plain process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(number):
        place = {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if number > 1 else {}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, str(ROOT / "tests/helpers/fsdp/rank.py")]
        processes.append(subprocess.Popen(command, env=os.environ | ON_CPU | place, text=True, **pipes))
    try:
        yield Ranks(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def one() -> Iterator[Ranks]:
    with started(1) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def two(one: Ranks) -> Iterator[Ranks]:
    with started(2) as ranks:
        yield ranks


def check_one_and_two(one: Ranks, two: Ranks, recipe: Path) -> tuple[Path, Path]:
    """Trains with both, each to the end and from where the other one saved half-way; the two whole runs."""
    folder = recipe.parent
    alone, sharded = one.pretrain(recipe, folder / "alone"), two.pretrain(recipe, folder / "sharded")
    assert difference(alone, sharded) <= CLOSE
    assert difference(alone, one.resume(recipe, sharded / HALF_WAY, folder / "went_on_alone")) <= CLOSE
    assert difference(alone, two.resume(recipe, alone / HALF_WAY, folder / "went_on_sharded")) <= CLOSE
    return alone, sharded


@pytest.fixture(scope="module")
def llama_runs(one: Ranks, two: Ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A Llama's recipe, and the runs of it on one device and on two ranks."""
    recipe = write_recipe(tmp_path_factory.mktemp("llama"), "llama")
    return recipe, *check_one_and_two(one, two, recipe)


def test_two_ranks_end_as_one_device(two: Ranks, llama_runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    recipe, alone, _ = llama_runs
    other_order = two.pretrain(recipe, tmp_path / "other_order", **{"data.init_args.seed": 1})
    assert difference(alone, other_order) > 1000 * CLOSE, "the order decides more than the tolerance"


def test_gpt2_on_two_ranks_ends_as_on_one_device(one: Ranks, two: Ranks, tmp_path: Path) -> None:
    """Its head and its embedding are one tensor, and stay so."""
    check_one_and_two(one, two, write_recipe(tmp_path, "gpt2"))


def test_a_teacher_on_two_ranks_teaches_as_on_one_device(one: Ranks, two: Ranks, tmp_path: Path) -> None:
    """Each rank has all of it; what it teaches decides more than the tolerance."""
    recipe = write_recipe(tmp_path, "llama")
    make_tokenizer(make_checkpoint(tmp_path / "teacher", n_layer=3, seed=5))
    content = yaml.safe_load(recipe.read_text())
    content["data"]["class_path"] = "inheritune_lit.data.DistilledTokens"
    content["data"]["init_args"] |= {"teacher_dir": str(tmp_path / "teacher"), "weight": 0.7, "temperature": 2.0}
    recipe.write_text(yaml.dump(content))
    alone, _ = check_one_and_two(one, two, recipe)
    untaught = two.pretrain(recipe, tmp_path / "untaught", **{"data.init_args.weight": 0})
    assert difference(alone, untaught) > 1000 * CLOSE


def test_tied_embeddings_are_untied_by_fsdp(one: Ranks, two: Ranks, tmp_path: Path) -> None:
    """So two ranks end as one device without tying does, from the same equal tensors; not as one device with it."""
    recipe = write_recipe(tmp_path, "llama", tied=True)
    sharded = two.pretrain(recipe, tmp_path / "sharded")
    untied = one.pretrain(recipe, tmp_path / "untied", **{"train.tie_embeddings": "false"})
    assert difference(untied, sharded) <= CLOSE
    tied = one.pretrain(recipe, tmp_path / "tied")
    assert difference(tied, sharded) > 1000 * CLOSE
    weights = weights_of(sharded)
    assert not torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"])
    weights = weights_of(tied)
    assert torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"])


def test_either_rank_is_killed_and_the_run_is_as_any_other(
    llama_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of rank 1 in a step, of rank 0 while it saves; then what follows a training takes the run as it is."""
    (path, alone, undisturbed), run = llama_runs, tmp_path / "run"
    recipe = yaml.safe_load(path.read_text()) | {"devices": 2}
    with pytest.raises(InheritError, match="resumes after step-00000004"):
        train(recipe, run, environment=ON_CPU | {"KILLED": "1 6"})
    with pytest.raises(InheritError, match="killed by SIGKILL"):
        train(recipe, run, environment=ON_CPU | {"KILLED": "0 saving"})
    assert (run / "step-00000008").is_dir(), "half of it is written"
    receipt = train(recipe, run, environment=ON_CPU)

    assert [launch["from_step"] for launch in receipt["launches"]] == [0, 4, 4]
    assert (run / ".torn-step-00000008").is_dir()
    assert same_state(undisturbed, run)
    check_after_training(run, alone, monkeypatch)
    assert "training" in summary(run, receipt)
    assert "(of 1/2 of each batch)" in summary(run, receipt)


def check_after_training(run: Path, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts, curves, preflight, surgery and export."""
    check_files(run / "model", read_receipt(run / "model")["files"])
    model = Weights(run / "model" / WEIGHTS)
    final = weights_of(run)
    assert set(model) == set(final)
    assert all(torch.equal(model[name], tensor) for name, tensor in final.items())

    # litGPT logs what rank 0 saw: half of each batch in training, all of the same windows in validation
    sharded = read_run(run)
    assert sharded.ranks == (2,)
    log = alone / "logs/csv/version_0/metrics.csv"
    whole = _read_log(log, STEPS * BATCH * LENGTH, BATCH * LENGTH)
    validation = {step: loss for step, _, loss in sharded.curves["validation"] if step}
    assert validation == pytest.approx(whole["validation"], abs=1e-5)
    training = {step: loss for step, _, loss in sharded.curves["training"]}
    assert training.keys() == whole["training"].keys()
    assert max(abs(training[step] - whole["training"][step]) for step in training) > 0.01
    noted = step_losses(run / TRACE, BATCH)  # of all ranks, killed and resumed as they were
    assert noted == pytest.approx(whole["training"], abs=1e-5)

    monkeypatch.setattr(preflight, "gpu_names", lambda: ["NVIDIA H100"] * 2)
    recipe = run / RUN_RECIPE
    findings = preflight.preflight(read_document(recipe), run, preflight.Request(recipe, dry_run=True))
    assert not [finding for finding in findings if finding.severity == "error"]

    surgery(run / "final", layers="1", out_dir=run.parent / "cut")
    verify(run.parent / "cut", source=run / "final")
    monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)  # spares 6 s
    exported = export_checkpoint(run, run.parent / "exported")
    assert exported["check"]["depth"] == 2


def test_a_tied_run_stays_on_as_many_devices(tmp_path: Path) -> None:
    recipe = yaml.safe_load(write_recipe(tmp_path, "llama", tied=True).read_text()) | {"devices": 1}
    run = tmp_path / "run"
    with pytest.raises(InheritError, match="failed with exit code"):
        train(recipe, run, options=Options(launcher="bash -c 'exit 1' litgpt"))
    assert read_run(run).ranks == (), "it made no step: nothing to go on from"
    record = json.loads((run / "launch.json").read_text())
    for before, now, said in (
        (1, 2, "1 device, this would go on with 2"),
        (4, 1, "4 devices, this would go on with 1"),
    ):
        record["launches"][0] |= {"to_step": 4, "world_size": before}
        (run / "launch.json").write_text(json.dumps(record))
        with pytest.raises(InheritError, match=said):
            train(recipe | {"devices": now}, run)
