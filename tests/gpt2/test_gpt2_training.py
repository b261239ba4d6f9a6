"""GPT-2 trained by others: sharded by FSDP as litGPT shards it, and by `litgpt pretrain` itself."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers.gpt2 import TOKENS, config
from helpers.models import ARCHITECTURES, make_tokenizer, make_tokens
from lightning.fabric.strategies import FSDPStrategy
from litgpt.model import Block
from torch import distributed, nn
from torch.nn import functional as F

from inheritune_lit import gpt2
from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.evaluate import validation_loss, validation_windows
from inheritune_lit.gpt2.install import initialize_weights

BATCH_OF_TWO_RANKS = torch.cat([TOKENS, TOKENS[:1].flip(1)])


def losses_of_steps(model: nn.Module, windows: torch.Tensor) -> list[float]:
    """Losses of four steps on one batch, averaged over the ranks if there are any."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shared = loss.detach().clone()
        if distributed.is_initialized():
            distributed.all_reduce(shared)
            shared /= distributed.get_world_size()
        losses.append(shared.item())
    return losses


def sharded_rank(rank: int, folder: Path) -> None:
    """As Fabric sets FSDP up: built without data, wrapped by Block, initialised as it is wrapped."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    with torch.device("meta"):
        model = gpt2.build(config())
    fabric = SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy))  # Fabric itself refuses FSDP on the CPU
    initialize_weights(fabric, model, n_layer=3, n_embd=32)
    torch.manual_seed(0)
    cpu, policy = torch.device("cpu"), ModuleWrapPolicy({Block})
    sharded = FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=cpu, use_orig_params=True)
    with FullyShardedDataParallel.summon_full_params(sharded):
        names = (name.replace("_fsdp_wrapped_module.", "") for name, _ in sharded.named_parameters())
        start = {name: p.detach().clone() for name, p in zip(names, sharded.parameters(), strict=True)}
    losses = losses_of_steps(sharded, BATCH_OF_TWO_RANKS[2 * rank : 2 * rank + 2])
    if rank == 0:
        torch.save({"start": start, "losses": losses}, folder / "result.pt")
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # of FSDP on the CPU
def test_two_fsdp_ranks_train_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(sharded_rank, args=(tmp_path,), nprocs=2)
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    for name, tensor in result["start"].items():
        expected = 0.02 / math.sqrt(6) if name.endswith("proj.weight") else 0.02
        assert tensor.std().item() == pytest.approx(expected if tensor.ndim == 2 else 0.0, rel=0.1), name
    whole = gpt2.build(config())
    whole.load_state_dict(result["start"])
    assert losses_of_steps(whole, BATCH_OF_TWO_RANKS) == pytest.approx(result["losses"], abs=1e-5)
    # negative control: half of the batch is another one
    whole.load_state_dict(result["start"])
    assert losses_of_steps(whole, BATCH_OF_TWO_RANKS[:2]) != pytest.approx(result["losses"], abs=1e-3)


# The whole of it under litGPT

STEPS, BATCH, LENGTH = 4, 4, 16


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two blocks from a random start, max_seq_length below block_size; 20 documents of text."""
    folder = tmp_path_factory.mktemp("pretrain")
    make_tokenizer(folder / "tokenizer")
    tokens = make_tokens(folder, folder / "tokenizer", documents=20)
    (folder / "tokenizer/config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    return {
        "model_name": "pythia-14m",
        "model_config": {"name": "gpt2-tiny", **ARCHITECTURES["gpt2"][1], "n_layer": 2},
        "tokenizer_dir": str(folder / "tokenizer"),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(tokens), "epochs": 2, "num_workers": 0},
        },
        "train": {
            "max_tokens": STEPS * BATCH * LENGTH,
            "max_seq_length": LENGTH,
            "global_batch_size": BATCH,
            "micro_batch_size": 2,
            "lr_warmup_steps": 1,
            "min_lr": 1e-4,
            "max_norm": 1.0,
            "save_interval": None,
            "log_interval": 1,
        },
        "eval": {"interval": STEPS, "max_iters": 100},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        "logger_name": "csv",
    }


def pretrain(recipe: dict[str, Any], out_dir: Path, *, compiled: bool) -> tuple[list[float], float]:
    """Training losses and the last validation loss of `litgpt pretrain`."""
    out_dir.mkdir()
    (out_dir / "recipe.yaml").write_text(yaml.dump(recipe | {"out_dir": str(out_dir)}))
    command = [sys.executable, "-m", "litgpt", "pretrain", "--config", str(out_dir / "recipe.yaml")]
    # A cache of its own: Inductor's does not know that code was compiled for AVX-512 and is now asked for with
    # ATEN_CPU_CAPABILITY=avx2, loads it all the same, and it writes past its buffers.
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(out_dir / "inductor")}
    environment = {**os.environ, **cache, "TORCHDYNAMO_DISABLE": "0" if compiled else "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    # wte, wpe, two blocks, ln_f
    assert f"Total parameters: {(64 + 32 + 1) * 32 + 2 * (12 * 32**2 + 2 * 32):,}" in done.stdout + done.stderr
    with (out_dir / "logs/csv/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    return losses, next(float(row["val_loss"]) for row in reversed(rows) if row["val_loss"])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a C compiler on the CPU")
def test_litgpt_pretrain_trains_a_gpt2_with_and_without_compiling(recipe: dict[str, Any], tmp_path: Path) -> None:
    losses, val_loss = pretrain(recipe, tmp_path / "run", compiled=False)
    assert len(losses) == STEPS
    # the embedding is the head, so that its start decides the first loss: ln(64) for GPT-2's, more for litGPT's
    assert losses[0] == pytest.approx(math.log(64), abs=0.05)
    model = load_model(tmp_path / "run/final")
    assert load_config(tmp_path / "run/final").hf_config == recipe["model_config"]["hf_config"]
    assert model.transformer.h[1].mlp.proj.weight.std().item() == pytest.approx(0.01, rel=0.15)
    windows = validation_windows(Path(recipe["data"]["init_args"]["data_path"]), LENGTH, 2, 100)
    assert validation_loss(model, windows).mean == pytest.approx(val_loss, abs=1e-5)

    compiled, compiled_val = pretrain(recipe, tmp_path / "compiled", compiled=True)
    assert compiled == pytest.approx(losses, abs=1e-5)
    assert compiled_val == pytest.approx(val_loss, abs=1e-5)
