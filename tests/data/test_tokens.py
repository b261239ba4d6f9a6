"""PackedTokens: its windows, its global order on any number of ranks, workers and micro-batches, and its resume."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from litgpt.tokenizer import Tokenizer

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data import PackedTokens
from inheritune_lit.data.encoding import open_tokenizer
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.order import GlobalOrder, Windows, epoch_order
from inheritune_lit.data.tokens import TrainLoader

T = 4


def write_shards(folder: Path, train: Sequence[int], val: Sequence[int] = (9,) * 40, dtype: str = "uint16") -> Path:
    """Token shards of the given lengths; token i of the training stream is i, so that a window tells where it is."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, lengths in (("train", train), ("val", val)):
        stream, shards = np.arange(sum(lengths)), []
        for i, (start, end) in enumerate(pairwise(np.cumsum([0, *lengths]).tolist())):
            path = folder / "web" / split / f"{i:05d}.ds"
            path.parent.mkdir(parents=True, exist_ok=True)
            stream[start:end].astype(np.dtype(dtype).newbyteorder("<")).tofile(path)
            shards.append({"path": str(path.relative_to(folder)), "tokens": end - start, "sha256": f"{split}{i}"})
        entry = {"domain": "web", "tokens": len(stream), "documents": 1, "max_token_id": len(stream) - 1}
        splits[split] = [entry | {"shards": shards}]
    tokenizer = {"file": "tokenizer.json", "identity": "0" * 64, "vocab_size": 1000}
    manifest = {"format": 1, "dtype": dtype, "tokenizer": tokenizer, "splits": splits}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def connected(folder: Path, batch_size: int = 2, **settings: Any) -> PackedTokens:
    data = PackedTokens(folder, **{"num_workers": 0, **settings})
    data.connect(batch_size=batch_size, max_seq_length=T)
    data.prepare_data()
    data.setup()
    return data


def numbers(tokens: torch.Tensor) -> list[int]:
    """The window numbers of a micro-batch (B, T + 1), and a check that each is that window."""
    assert torch.equal(tokens, tokens[:, :1] + torch.arange(T + 1))
    return (tokens[:, 0] // T).tolist()


def read(loader: TrainLoader) -> list[list[int]]:
    """The window numbers of each micro-batch; the last one is the end of the data, which is an error to look into."""
    *batches, end = loader
    with pytest.raises(InheritError, match="used up"):
        end[:, 0]
    return [numbers(batch[:, : T + 1]) for batch in batches]


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


# Windows


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("lengths", [(41,), (1, 0, 2, 3, 35), (20, 21), (40, 1), (0, 41, 0)])
def test_windows_are_the_stream_whatever_the_shards(tmp_path: Path, lengths: tuple[int, ...], dtype: str) -> None:
    windows = Windows(Manifest(write_shards(tmp_path, lengths, dtype=dtype)), "train", T)
    assert len(windows) == 10
    assert numbers(windows.__getitems__(range(10))) == list(range(10))
    # every token but the first is a target exactly once
    targets = windows.__getitems__(range(10))[:, 1:]
    assert targets.flatten().tolist() == list(range(1, 41))


def test_a_tail_shorter_than_a_window_is_left_out(tmp_path: Path) -> None:
    assert [len(Windows(Manifest(write_shards(tmp_path, [n])), "train", T)) for n in (5, 8, 9, 44)] == [1, 1, 2, 10]


def test_too_little_text_for_a_window(tmp_path: Path) -> None:
    write_shards(tmp_path, [41], [4])
    with pytest.raises(InheritError, match=r"split 'val' has 4 tokens, fewer than one window of 5.*val_share"):
        connected(tmp_path).val_dataloader()


def test_a_damaged_shard_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    data = connected(write_shards(tmp_path, [20, 21]), num_workers=1)
    with (tmp_path / "web/train/00001.ds").open("r+b") as file:
        file.seek(10)
        file.write(b"\xff\xff")
    with pytest.raises(InheritError, match=r"00001.ds is damaged: token id 65535 at token 25 of the stream"):
        read(data.train_dataloader())


def test_a_spawned_worker_is_not_sent_the_tokens(tmp_path: Path) -> None:
    windows = Windows(Manifest(write_shards(tmp_path, [100_001])), "train", T)
    before = windows.__getitems__([7])
    assert len(pickle.dumps(windows)) < 10_000
    assert torch.equal(pickle.loads(pickle.dumps(windows)).__getitems__([7]), before)


# Order


def test_the_order_is_the_same_for_ever() -> None:
    """Recorded values: another NumPy or another machine must not change what a recipe trains on."""
    assert epoch_order(10, seed=42, epoch=0).tolist() == [5, 0, 6, 4, 2, 7, 3, 1, 8, 9]
    assert epoch_order(10, seed=42, epoch=1).tolist() == [3, 1, 2, 9, 5, 0, 6, 8, 7, 4]
    assert epoch_order(100_003, seed=42, epoch=7)[:5].tolist() == [89683, 94825, 78998, 90084, 45626]
    assert sorted(epoch_order(1000, seed=1, epoch=5)) == list(range(1000))


def simulate(windows: Windows, ranks: int, batch_size: int, epochs: int, step: int) -> list[list[int]]:
    """What each optimizer step reads over all ranks, each of which takes micro-batches until it has its share."""
    orders = [
        list(GlobalOrder(windows, seed=1, epochs=epochs, batch_size=batch_size, rank=rank, ranks=ranks))
        for rank in range(ranks)
    ]
    share = step // ranks
    return [sorted(flat(order[i : i + share] for order in orders)) for i in range(0, len(orders[0]), share)]


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 12), (1, 1), (2, 6), (2, 3), (3, 2), (4, 3), (12, 1)])
def test_steps_read_the_same_for_any_ranks_and_micro_batch(tmp_path: Path, ranks: int, batch_size: int) -> None:
    windows = Windows(Manifest(write_shards(tmp_path, [31 * T + 1])), "train", T)
    steps = simulate(windows, ranks, batch_size, epochs=3, step=12)
    whole = [step for step in steps if len(step) == 12]
    assert len(whole) == 3 * 31 // 12
    order = np.concatenate([epoch_order(31, 1, epoch) for epoch in range(3)])
    assert whole == [sorted(order[12 * i : 12 * i + 12].tolist()) for i in range(len(whole))]


def test_every_window_once_an_epoch_in_another_order_each(tmp_path: Path) -> None:
    read_windows = flat(read(connected(write_shards(tmp_path, [41]), epochs=3).train_dataloader()))
    epochs = [read_windows[i : i + 10] for i in (0, 10, 20)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    other_seed = flat(read(connected(tmp_path, epochs=3, seed=7).train_dataloader()))
    assert other_seed != read_windows


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, [30, 51])
    expected = read(connected(tmp_path, epochs=2).train_dataloader())
    assert read(connected(tmp_path, epochs=2, num_workers=workers).train_dataloader()) == expected


TWO_RANKS = """
import json, os, sys, torch
from lightning import Fabric
from inheritune_lit.data import PackedTokens
rank, folder, rendezvous = int(os.environ["RANK"]), sys.argv[1], sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
assert (fabric.global_rank, fabric.world_size) == (rank, 2)
out = {}
for workers in (0, 1, 3):
    for batch_size in (1, 2, 3):
        data = PackedTokens(folder, epochs=2, num_workers=workers)
        data.connect(batch_size=batch_size, max_seq_length=4)
        train, val = fabric.setup_dataloaders(data.train_dataloader(), data.val_dataloader())
        batches = []
        for i, batch in enumerate(train):
            if i == len(train):
                break
            batches += (batch[:, 0] // 4).tolist()
        out[f"{workers} {batch_size}"] = batches, [b[:, 0].tolist() for b in val]
print(json.dumps(out))
torch.distributed.destroy_process_group()
"""


def test_two_gloo_ranks_read_each_step_together(tmp_path: Path) -> None:
    """Under Fabric's DDP, which replaces samplers and wraps loaders, for any workers and micro-batch."""
    folder = write_shards(tmp_path / "tokens", [25, 40, 56 + 4], [61])
    ranks = []
    for rank in range(2):
        # what torchrun would set, so that Fabric starts no processes; the rendezvous is a file, no port
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        names |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost", "MASTER_PORT": 0}
        environment = os.environ | {name: str(value) for name, value in names.items()}
        command = [sys.executable, "-W", "ignore", "-c", TWO_RANKS, folder, tmp_path / "rendezvous"]
        ranks.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    outputs = []
    for process in ranks:
        out, err = process.communicate()
        assert process.returncode == 0, err
        outputs.append(json.loads(out.splitlines()[-1]))
    order = np.concatenate([epoch_order(31, 42, epoch) for epoch in range(2)])
    for key in outputs[0]:
        (first, first_val), (second, second_val) = outputs[0][key], outputs[1][key]
        for i in range(0, len(first) // 6 * 6, 6):  # steps of 12 windows, 6 a rank
            assert sorted(first[i : i + 6] + second[i : i + 6]) == sorted(order[2 * i : 2 * i + 12].tolist()), key
        assert len(first) == len(second) >= 30
        assert first_val == second_val  # rank 0's validation loss is the loss
        assert flat(first_val)[:3] == [0, 4, 8]


# Resume


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 2), (2, 2), (0, 3), (1, 1)])
def test_a_resumed_loader_goes_on_with_the_next_sample(tmp_path: Path, workers: int, batch_size: int) -> None:
    write_shards(tmp_path, [41])
    whole = read(connected(tmp_path, epochs=3).train_dataloader())
    loader, seen = connected(tmp_path, epochs=3, num_workers=workers).train_dataloader(), []
    for batch in loader:
        seen.append(numbers(batch[:, : T + 1]))
        if len(seen) == 6:  # 12 windows: in the second epoch
            break
    state = loader.state_dict()
    assert state["consumed"] == 12
    # as torch.save would; with another micro-batch
    resumed = connected(tmp_path, batch_size, epochs=3, num_workers=workers).train_dataloader()
    resumed.load_state_dict(json.loads(json.dumps(state)))
    assert len(resumed) == 30 // batch_size, "of all epochs: litGPT takes lr_warmup_fraction of it"
    assert flat(seen + read(resumed)) == flat(whole)


def test_what_litgpt_fetches_and_drops_at_the_end_is_not_consumed(tmp_path: Path) -> None:
    loader = connected(write_shards(tmp_path, [41]), epochs=1).train_dataloader()
    batches = iter(loader)
    for _ in range(3):
        next(batches)[:, :T]
    next(batches)
    assert loader.state_dict()["consumed"] == 6


def test_the_end_is_an_error_that_says_what_to_do_but_only_if_more_is_used(tmp_path: Path) -> None:
    loader = connected(write_shards(tmp_path, [41]), batch_size=4, epochs=2).train_dataloader()
    batches = list(loader)
    assert len(batches) == 20 // 4 + 1
    assert [len(batch[:, 0]) for batch in batches[:5]] == [4] * 5
    with pytest.raises(
        InheritError, match=r"used up: 2 epochs over 10 windows of 4 tokens, 20 of these 20 .* train.max_tokens to 80"
    ):
        batches[5][:, 0]
    assert loader.state_dict()["consumed"] == 20


def test_resume_on_other_data_is_refused(tmp_path: Path) -> None:
    state = connected(write_shards(tmp_path / "a", [41])).train_dataloader().state_dict()
    other_data = connected(write_shards(tmp_path / "b", [20, 25]))
    other_seed = connected(tmp_path / "a", seed=3)
    other_length = connected(tmp_path / "a")
    other_length.max_seq_length = 8
    for data, problem in (
        (other_data, "tokens: 41 before, 45 now"),
        (other_seed, "seed: 42 before, 3 now"),
        (other_length, "max_seq_length: 4 before, 8 now"),
    ):
        with pytest.raises(InheritError, match=problem):
            data.train_dataloader().load_state_dict(state)


# Checks before training


def test_settings_out_of_range() -> None:
    for name, value in (("epochs", 0), ("seed", -1), ("seed", 2**32), ("num_workers", -1)):
        with pytest.raises(InheritError, match=f"init_args.{name} is {value}, expected"):
            PackedTokens(Path("data"), **{name: value})


def test_missing_and_cut_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(InheritError, match="holds no token shards.*inheritune prepare"):
        connected(tmp_path)
    shard = write_shards(tmp_path, [41]) / "web/train/00000.ds"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(InheritError, match="00000.ds has 80 bytes, the manifest expects 82 bytes"):
        connected(tmp_path)


def test_another_tokenizer_and_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    ours, other = make_tokenizer(tmp_path / "ours"), make_tokenizer(tmp_path / "other", size=63)
    _, entry = open_tokenizer(ours)
    manifest = json.loads((write_shards(tmp_path / "tokens", [41]) / "manifest.json").read_text())

    def connect(tokenizer_dir: Path) -> None:
        (tmp_path / "tokens/manifest.json").write_text(json.dumps(manifest))
        PackedTokens(tmp_path / "tokens").connect(Tokenizer(tokenizer_dir), batch_size=2, max_seq_length=T)

    with pytest.raises(
        InheritError, match=r"another tokenizer than tokenizer_dir's: .* of 1,000 tokens.*got 64 tokens"
    ):
        connect(ours)
    manifest["tokenizer"] = entry
    with pytest.raises(InheritError, match=r"split 'val' has the token id 359, the vocabulary ends at 63"):
        connect(ours)
    manifest["splits"]["val"][0]["max_token_id"] = 63
    connect(ours)
    with pytest.raises(InheritError, match="another tokenizer"):
        connect(other)


# The whole of it under litGPT

STEPS, GLOBAL_BATCH, LENGTH = 7, 6, 16


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small Llama, real shards of made-up text that two epochs of 7 steps use up, and a recipe for them."""
    folder = tmp_path_factory.mktemp("pretrain")
    checkpoint = make_checkpoint(folder / "open_llama_tiny")
    make_tokenizer(checkpoint)
    tokens = make_tokens(folder, checkpoint, documents=22)
    assert Manifest(tokens).splits["train"].tokens == 22 * 16
    config = yaml.safe_load((checkpoint / "model_config.yaml").read_text())
    return {
        "model_name": "open_llama_3b",
        "model_config": config,
        "initial_checkpoint_dir": str(checkpoint),
        "tokenizer_dir": str(checkpoint),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(tokens), "epochs": 2, "num_workers": 1},
        },
        "train": {
            "max_tokens": STEPS * GLOBAL_BATCH * LENGTH,
            "max_seq_length": LENGTH,
            "global_batch_size": GLOBAL_BATCH,
            "micro_batch_size": 2,
            "lr_warmup_steps": 2,
            "min_lr": 1e-4,
            "max_norm": 1.0,
            "save_interval": 1,
            "log_interval": 1,
        },
        "eval": {"interval": 2, "max_iters": 2},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
        "logger_name": "csv",
    }


def pretrain(recipe: dict[str, Any], out_dir: Path, *flags: str, kill_at: str | None = None) -> str:
    """Runs `litgpt pretrain`, killed with -9 when it prints `kill_at`; returns what it printed."""
    out_dir.mkdir(exist_ok=True)
    (out_dir / "recipe.yaml").write_text(yaml.dump(recipe | {"out_dir": str(out_dir)}))
    command = [sys.executable, "-u", "-m", "litgpt", "pretrain", "--config", str(out_dir / "recipe.yaml"), *flags]
    output = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if kill_at is not None and kill_at in line:
                process.kill()
                return output
    assert kill_at is None, f"it never said {kill_at!r}:\n{output}"
    assert process.returncode == 0, output
    return output


def losses(out_dir: Path, version: int = 0) -> list[tuple[str, str]]:
    with (out_dir / f"logs/csv/version_{version}/metrics.csv").open(newline="") as file:
        return [(row["step"], row["loss"] or row["val_loss"]) for row in csv.DictReader(file)]


def test_a_killed_and_resumed_pretraining_ends_bit_identical(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Stopped in the second epoch; the budget is all of both epochs, to the last window."""
    windows = (22 * 16 - 1) // LENGTH
    assert windows < 4 * GLOBAL_BATCH < 2 * windows == STEPS * GLOBAL_BATCH
    assert "Micro-batch" not in pretrain(recipe, tmp_path / "whole"), "only the launcher is told"
    pretrain(recipe, tmp_path / "killed", kill_at="step-00000005")
    step = tmp_path / "killed/step-00000004/lit_model.pth"
    shutil.rmtree(tmp_path / "killed/step-00000005", ignore_errors=True)
    flags = ("--resume", str(step), "--initial_checkpoint_dir", "null")
    pretrain(recipe, tmp_path / "killed", *flags)

    whole, resumed = (
        torch.load(tmp_path / run / "final/lit_model.pth", weights_only=True) for run in ("whole", "killed")
    )
    assert whole["train_dataloader"] == resumed["train_dataloader"]
    assert whole["train_dataloader"]["consumed"] == STEPS * GLOBAL_BATCH
    assert whole["iter_num"] == resumed["iter_num"] == STEPS * GLOBAL_BATCH // 2
    assert all(torch.equal(tensor, resumed["model"][name]) for name, tensor in whole["model"].items())
    optimizer = (run["optimizer"]["state"] for run in (whole, resumed))
    for ours, theirs in zip(*(state.values() for state in optimizer), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # negative control: the step before is another model
    earlier = torch.load(tmp_path / "whole/step-00000006/lit_model.pth", weights_only=True)["model"]
    assert not any(torch.equal(tensor, earlier[name]) for name, tensor in whole["model"].items())
