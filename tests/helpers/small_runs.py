"""What the long faults hit: a small model's recipe and data, made in seconds, trained in seconds."""

import os
from pathlib import Path
from typing import Any

import torch
import yaml

from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from inheritune_lit.checkpoint.folder import WEIGHTS

BATCH, LENGTH, DOCUMENTS = 4, 16, 13
DEMO = "INHERITUNE_FAULTS_RECIPE"


def make_recipe(folder: Path, steps: int, layers: int = 2, **train: Any) -> dict[str, Any]:
    """A recipe of a small Llama, its start and its data in `folder`; dropout of any kind is not in it."""
    checkpoint = make_checkpoint(folder / "open_llama_tiny", n_layer=layers)
    make_tokenizer(checkpoint)
    tokens = make_tokens(folder, checkpoint, documents=DOCUMENTS, words=60)
    epochs = -(-steps * BATCH * LENGTH // (DOCUMENTS * 60))
    return {
        "model_name": "small",
        "model_config": yaml.safe_load((checkpoint / "model_config.yaml").read_text()) | {"name": "small"},
        "initial_checkpoint_dir": str(checkpoint),
        "tokenizer_dir": str(checkpoint),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(tokens), "epochs": epochs, "num_workers": 1},
        },
        "train": {
            "max_tokens": steps * BATCH * LENGTH,
            "max_seq_length": LENGTH,
            "global_batch_size": BATCH,
            "micro_batch_size": 2,
            "lr_warmup_steps": 2,
            "min_lr": 1e-4,
            "max_norm": 1.0,
            "save_interval": 10,
            "log_interval": 1,
            "tie_embeddings": False,
        }
        | train,
        "eval": {"interval": 10**6, "max_iters": 1, "initial_validation": False, "final_validation": False},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        "logger_name": "csv",
    }


def recipe_to_kill(folder: Path, steps: int) -> dict[str, Any]:
    """The recipe that INHERITUNE_FAULTS_RECIPE names, such as the demo's once `inheritune demo` has written it.

    One that saves nothing before its end, as the demo's, gets a checkpoint every fifth step, to go on from.
    """
    if path := os.environ.get(DEMO):
        recipe = dict(yaml.safe_load(Path(path).read_text()))
        return recipe | {"train": recipe["train"] | {"save_interval": recipe["train"].get("save_interval") or 5}}
    return make_recipe(folder, steps)


def same_state(one: Path, other: Path) -> bool:
    """Whether two finished runs end in the same bits: weights, optimizer, counters and the loader's place."""
    ours, theirs = (torch.load(run / "final" / WEIGHTS, weights_only=True) for run in (one, other))
    return _same(ours, theirs)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


TRAIN = """
import sys, yaml
from pathlib import Path
from inheritune_lit.base.folders import InheritError
from inheritune_lit.pretrain import train
try:
    train(yaml.safe_load(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
except InheritError as error:
    sys.exit(f"{error}")
"""


def trainings(run: Path) -> list[int]:
    """Process ids of the `litgpt pretrain` that runs in a run's folder, and of its workers."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{run}/recipe.yaml" in command.read_bytes().decode(errors="replace"):
                found.append(int(command.parts[2]))
        except OSError:  # gone meanwhile
            continue
    return sorted(found)
