"""`inheritune pretrain` and its function: runs that are killed, torn, changed and gone wrong, with a small model."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.checkpoint import RECEIPT, WEIGHTS, Weights, read_receipt
from inheritune_lit.commit import InheritError
from inheritune_lit.launch import Progress, train
from inheritune_lit.runs import read_run
from inheritune_lit.verify import check_files, load_model

STEPS, BATCH, LENGTH = 6, 4, 16


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small Llama, shards of made-up text that are used up in two epochs, and a recipe of six steps."""
    folder = tmp_path_factory.mktemp("launch")
    checkpoint = make_checkpoint(folder / "open_llama_tiny", n_layer=2)
    make_tokenizer(checkpoint)
    return {
        "model_name": "open_llama_3b",
        "model_config": yaml.safe_load((checkpoint / "model_config.yaml").read_text()),
        "initial_checkpoint_dir": str(checkpoint),
        "tokenizer_dir": str(checkpoint),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {
                "data_path": str(make_tokens(folder, checkpoint, documents=13)),
                "epochs": 2,
                "num_workers": 0,
            },
        },
        "train": {
            "max_tokens": STEPS * BATCH * LENGTH,
            "max_seq_length": LENGTH,
            "global_batch_size": BATCH,
            "micro_batch_size": 2,
            "lr_warmup_steps": 2,
            "min_lr": 1e-4,
            "max_norm": 1.0,
            "save_interval": 2,
            "log_interval": 1,
        },
        "eval": {"interval": 3, "max_iters": 1, "initial_validation": True, "final_validation": False},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
        "logger_name": "csv",
    }


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    seen: list[Progress] = []
    receipt = train(recipe, run, on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, STEPS + 1))
    assert receipt["steps"] == seen[-1].steps == STEPS
    assert receipt["losses"]["training"] == pytest.approx(seen[-1].loss, abs=1e-3)
    return run


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = Weights(one / WEIGHTS), Weights(other / WEIGHTS)
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_finished_run(recipe: dict[str, Any], whole: Path) -> None:
    receipt = train(recipe, whole)  # at once, as it is finished
    assert receipt["tokens"] == STEPS * BATCH * LENGTH
    assert receipt["tokens_per_second"] > 0
    assert receipt["mfu"] is None, "a CPU has no known peak"
    assert receipt["start"]["fingerprint"] == Weights(Path(recipe["initial_checkpoint_dir"]) / WEIGHTS).fingerprint()
    assert same_weights(whole / "model", whole / "final")
    check_files(whole / "model", read_receipt(whole / "model")["files"])
    assert load_model(whole / "model").config.n_layer == 2
    assert not same_weights(whole / "model", Path(recipe["initial_checkpoint_dir"]))
    assert set(torch.load(whole / "model" / WEIGHTS, weights_only=True)) == set(Weights(whole / "model" / WEIGHTS))
    run = read_run(whole)
    assert run.name == "whole"
    assert run.finished
    assert [(step, tokens) for step, tokens, _ in run.curves["training"]] == [
        (step, step * BATCH * LENGTH) for step in range(1, STEPS + 1)
    ]
    assert [step for step, _, _ in run.curves["validation"]] == [0, 3, 6]
    assert (whole / "model" / RECEIPT).is_file()


class Killed(Exception):
    """What a test raises when a training has come far enough: the training is killed."""


def kill_at(step: int) -> Any:
    def on_progress(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return on_progress


def killed(recipe: dict[str, Any], run: Path, step: int, **options: Any) -> Path:
    with pytest.raises(Killed):
        train(recipe, run, on_progress=kill_at(step), **options)
    return run


def learning_rates(run: Path) -> list[float]:
    rates: dict[int, float] = {}
    for log in sorted(run.glob("logs/csv/version_*/metrics.csv")):
        with log.open(newline="") as file:
            rates |= {
                int(row["total_tokens"]): float(row["learning_rate"]) for row in csv.DictReader(file) if row["loss"]
            }
    return [rate for _, rate in sorted(rates.items())]


def test_killed_torn_and_resumed_ends_bit_identical(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = killed(recipe, tmp_path / "run", 5)
    assert not (run / "run.json").exists()
    torn = run / "step-00000004/lit_model.pth"
    os.truncate(torn, torn.stat().st_size - 1000)
    with pytest.raises(InheritError, match=r"another recipe, start or data:\n  train.min_lr: 0.0001 before, 0.001 now"):
        train({**recipe, "train": {**recipe["train"], "min_lr": 1e-3}}, run)
    with pytest.raises(InheritError, match=r"\n  start: [0-9a-f]{16}… before, random now"):
        train({**recipe, "initial_checkpoint_dir": None}, run)

    receipt = train(recipe, run)
    printed = capsys.readouterr().out
    assert f"{run}/step-00000004 is not usable, and is {run}/.torn-step-00000004 now" in printed
    assert "Going on after step 2 of 6" in printed
    assert (run / ".torn-step-00000004/lit_model.pth").stat().st_size > 0, "set aside, not deleted"
    assert same_weights(whole / "model", run / "model")
    assert not same_weights(whole / "step-00000004", run / "model"), "another step is another model"
    for name, curve in read_run(whole).curves.items():  # to three digits, where the kill lost litGPT's CSV log
        assert read_run(run).curves[name] == [(s, t, pytest.approx(loss, abs=1e-3)) for s, t, loss in curve]
    assert [launch["from_step"] for launch in receipt["launches"]] == [0, 2]
    assert receipt["validation_loss_untrained"] == read_run(run).curves["validation"][0][2]


def test_another_micro_batch_on_resume(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """Two micro-batches a step become four after step 2: the same batches, the same learning rates."""
    run = killed(recipe, tmp_path / "run", 4)
    train({**recipe, "train": {**recipe["train"], "micro_batch_size": 1}}, run)
    assert learning_rates(run) == learning_rates(whole)
    ours, theirs = (torch.load(r / "final" / WEIGHTS, weights_only=True) for r in (run, whole))
    assert ours["train_dataloader"] == theirs["train_dataloader"]
    assert (ours["iter_num"], theirs["iter_num"], ours["step_count"]) == (24, 12, 6)
    for (_, tokens, loss), (_, same_tokens, expected) in zip(
        read_run(run).curves["training"], read_run(whole).curves["training"], strict=True
    ):
        assert tokens == same_tokens
        assert loss == pytest.approx(expected, abs=1e-3)
    for name, tensor in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], tensor, rtol=0, atol=2e-5)
