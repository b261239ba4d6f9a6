"""A recipe trained on one device and on two FSDP ranks of the CPU, and how far apart they end."""

import os
import sys
from pathlib import Path

import torch
import yaml

from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from inheritune_lit.checkpoint.folder import WEIGHTS

STEPS, BATCH, LENGTH = 8, 4, 16


CLOSE = 1e-6  # of float32 weights of order 1: the sums are the same ones in another order


ON_CPU = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "fsdp"), *filter(None, sys.path)]),
    "OMP_NUM_THREADS": "1",
}


def write_recipe(folder: Path, architecture: str, *, tied: bool = False) -> Path:
    start = make_checkpoint(folder / architecture, architecture, n_layer=2)
    make_tokenizer(start)
    if tied:
        weights = torch.load(start / WEIGHTS, weights_only=True)
        torch.save(weights | {"lm_head.weight": weights["transformer.wte.weight"].clone()}, start / WEIGHTS)
    tokens = folder / "tokens"
    recipe = {
        "model_name": "small",
        "model_config": yaml.safe_load((start / "model_config.yaml").read_text()) | {"name": "small"},
        "initial_checkpoint_dir": str(start),
        "tokenizer_dir": str(start),
        "precision": "32-true",
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {
                "data_path": str(tokens if tokens.is_dir() else make_tokens(folder, start, documents=20)),
                "epochs": 2,
                "num_workers": 0,
            },
        },
        "train": {
            "max_tokens": STEPS * BATCH * LENGTH,
            "max_seq_length": LENGTH,
            "global_batch_size": BATCH,
            "micro_batch_size": 1,
            "lr_warmup_steps": 2,
            "min_lr": 1e-4,
            "max_norm": 3.0,  # the norm of some steps' gradients is above it, of others below
            "save_interval": STEPS // 2,
            "log_interval": 1,
            "tie_embeddings": tied,
        },
        "eval": {"interval": STEPS // 2, "max_iters": 2, "initial_validation": True, "final_validation": False},
        # with its usual eps, 1e-8, AdamW would not notice gradients that are all twice as large
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3, "eps": 1e-2}},
        "logger_name": "csv",
    }
    path = folder / f"{architecture}.yaml"
    path.write_text(yaml.dump(recipe))
    return path


def difference(one: Path, other: Path) -> float:
    """The largest one between two runs' final weights."""
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "final" / WEIGHTS, weights_only=True)["model"])
