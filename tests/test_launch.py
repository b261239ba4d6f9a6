"""`inheritune pretrain` and its function: runs that are killed, torn, changed and gone wrong, with a small model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.checkpoint import RECEIPT, WEIGHTS, Weights, read_receipt
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
