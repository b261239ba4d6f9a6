"""What `inheritune pretrain` finds before it starts anything, and the script it prints for Slurm."""

import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import ROOT, make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json
from inheritune_lit.base.folders import locked
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.plan import machines, memory
from inheritune_lit.plan.machines import gpu_key, peak_flops
from inheritune_lit.pretrain import disk_and_memory
from inheritune_lit.pretrain import preflight as checks
from inheritune_lit.pretrain.command import pretrain
from inheritune_lit.pretrain.options import Request
from inheritune_lit.pretrain.preflight import preflight
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.litgpt_settings import data_settings, pretrain_settings
from inheritune_lit.surgery.command import surgery


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe for 100 steps of a small Llama that surgery wrote, with its data."""
    folder = tmp_path_factory.mktemp("preflight")
    make_tokenizer(make_checkpoint(folder / "reference"))
    surgery(folder / "reference", layers="3", out_dir=folder / "target")
    return {
        "model_name": "small",  # one that litGPT does not know, or it would compare
        "model_config": yaml.safe_load((folder / "target/model_config.yaml").read_text()) | {"name": "small"},
        "initial_checkpoint_dir": str(folder / "target"),
        "tokenizer_dir": str(folder / "target"),
        "out_dir": str(folder / "run"),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(make_tokens(folder, folder / "target", documents=26)), "epochs": 16},
        },
        "train": {
            "max_tokens": 100 * 4 * 16,
            "max_seq_length": 16,
            "global_batch_size": 4,
            "micro_batch_size": 2,
            "lr_warmup_steps": 2,
            "min_lr": 1e-4,
            "max_norm": 1.0,
            "save_interval": 10,
            "tie_embeddings": False,
        },
        "eval": {"interval": 50, "max_iters": 1},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
        "logger_name": "csv",
    }


def found(recipe: dict[str, Any], tmp_path: Path, **asked: Any) -> dict[str, Finding]:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.dump(recipe, sort_keys=False))
    run = Path(asked.pop("run", recipe["out_dir"]))
    findings = preflight(read_document(path), run, Request(path, **asked))
    return {finding.key: finding for finding in findings if finding.severity != "note"}


def test_a_good_recipe_has_nothing(recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(recipe, tmp_path, verify="full") == {}
    run = tmp_path / "run"
    pretrain(tmp_path / "recipe.yaml", out_dir=run, dry_run=True)
    assert "recipe.yaml: " in capsys.readouterr().out
    assert not run.exists()


def test_eight_mistakes_are_named_in_one_go(recipe: dict[str, Any], tmp_path: Path) -> None:
    """As a user types it, in less than five seconds of this machine's work, with nothing started."""
    train = recipe["train"] | {"micro_batch_size": 3, "max_tokens": 400 * 4 * 16, "max_nrom": 1.0, "max_steps": 10}
    broken = recipe | {
        "devices": 1,
        "precision": "bf16-true",
        "train": train,
        "model_config": recipe["model_config"] | {"n_layer": 4},
        "optimizer": {"class_path": "torch.optim.AdamV", "init_args": {"lr": 1e-2}},
        "out_dir": str(tmp_path / "run"),
    }
    broken["data"] = {**recipe["data"], "init_args": recipe["data"]["init_args"] | {"shufle": True}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.dump(broken) + "seed: 1\nseed: 2\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("mine")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "inheritune_lit", "pretrain", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1
    for key in (
        *("train.micro_batch_size", "data.init_args.epochs", "train.max_nrom", "train.max_steps", "seed", "out_dir"),
        *("model_config.n_layer", "optimizer.class_path", "data.init_args.shufle"),
    ):
        assert f"error    {key} " in done.stdout.replace("\n", " "), key
    assert "warning  precision" in done.stdout
    assert done.stdout.endswith("Nothing was started.\n")
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run/thesis.txt"]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5, "seconds of processor time"


def test_what_lies_in_a_start_and_in_a_record(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "out"
    run.mkdir()
    (run / "launch.json").write_text('{"recipe": null}')
    assert "is damaged: expected the recipe, start" in found(recipe, tmp_path, run=run)["out_dir"].problem
    start = shutil.copytree(recipe["initial_checkpoint_dir"], tmp_path / "start")
    (start / "inheritance.json").unlink()
    state = torch.load(start / "lit_model.pth", weights_only=True)
    state["lm_head.weight"][3, 1] = math.nan
    torch.save(state, start / "lit_model.pth")
    recipe = recipe | {"initial_checkpoint_dir": str(start)}
    finding = found(recipe, tmp_path, verify="full", run=tmp_path / "new")["initial_checkpoint_dir"]
    assert "'lm_head.weight' of" in finding.problem
    assert "holds 1 NaN or infinite values" in finding.problem
    assert found(recipe, tmp_path, run=tmp_path / "new") == {}, "its bytes are read for --verify full alone"


def test_saving_and_disk(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = {**recipe, "train": recipe["train"] | {"save_interval": None}}
    assert found(never, tmp_path)["train.save_interval"].severity == "warning"
    free = 3 * 2**20
    monkeypatch.setattr(disk_and_memory.shutil, "disk_usage", lambda place: type("Usage", (), {"free": free}))
    finding = found(recipe, tmp_path)["train.save_interval"]  # 11 checkpoints of 12 bytes a parameter
    assert "leave 11 checkpoints" in finding.problem
    assert "Pass --keep_last 2" in finding.fix
    assert found(recipe, tmp_path, keep_last=2) == {}
    old = tmp_path / "out/.before-1/step-00000002/lit_model.pth"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(40 * 2**20))
    assert disk_and_memory.there_already(tmp_path / "out", restart=False) == 0, "an earlier run's stay where they are"
    old.parent.rename(tmp_path / "out/step-00000002")
    assert disk_and_memory.there_already(tmp_path / "out", restart=False) == 40 * 2**20
    assert disk_and_memory.there_already(tmp_path / "out", restart=True) == 0, "they are set aside, and stay"
    shutil.rmtree(tmp_path / "out")
    assert found(never, tmp_path)["train.save_interval"].severity == "warning", "one checkpoint has room"
    small = Path(tempfile.gettempdir())
    usage = lambda place: type("Usage", (), {"free": 2**10 if place == small else 2**40})  # noqa: E731
    monkeypatch.setattr(disk_and_memory.shutil, "disk_usage", usage)
    assert "litGPT writes each checkpoint, 0 MiB, to " in found(recipe, tmp_path)["out_dir"].problem
    assert "Set TMPDIR to a folder on the disk of" in found(recipe, tmp_path)["out_dir"].fix


def test_gpus(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = {**recipe, "devices": 2, "train": recipe["train"] | {"micro_batch_size": 1}}
    assert "there are 0 GPUs of this machine" in found(two, tmp_path)["devices"].problem
    monkeypatch.setattr(checks, "gpu_names", lambda: ["NVIDIA H100 80GB HBM3"] * 4)
    assert "HYBRID_SHARD refuses it" in found(two, tmp_path)["devices"].problem
    assert found(two, tmp_path)["devices"].fix == "Set CUDA_VISIBLE_DEVICES=0,1, or use all 4."
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert found(two, tmp_path) == {}
    for setting, left in {"3": 1, "3,-1,2": 1, "-1": 0, "": 0}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
        problem = found(two, tmp_path)["devices"].problem
        assert f"there are {left} GPUs that CUDA_VISIBLE_DEVICES={setting} leaves" in problem


def test_memory(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_and_memory, "gpu_names", lambda: ["NVIDIA H100 80GB HBM3"])
    assert found(recipe, tmp_path) == {}
    monkeypatch.setitem(machines.GPUS, "h100", replace(machines.GPUS["h100"], memory_mib=0))
    finding = found(recipe, tmp_path)["train.micro_batch_size"]
    assert finding.severity == "error"
    assert "kept by PyTorch's allocator; a NVIDIA H100 80GB HBM3 has 0 MiB" in finding.problem
    monkeypatch.setattr(memory, "_kept", lambda *_, **__: 2**30)
    monkeypatch.setitem(machines.GPUS, "h100", replace(machines.GPUS["h100"], memory_mib=1000))
    finding = found(recipe, tmp_path)["train.micro_batch_size"]
    assert finding.severity == "warning"  # it runs while the allocator gives freed blocks back


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral"}, "does not describe the weights|can't convert"),
        ({"model_type": "gpt_neox"}, "can't convert .* into a gpt_neox"),
        ({"model_type": "nonesuch"}, "transformers does not accept"),
        ({"intermediate_size": 40}, r"mlp.gate_proj.weight has shape \(48, 32\), expected \(40, 32\)"),
        ({"layer_types": ["full_attention"] * 6}, "layer_types has 6 entries"),
    ],
)
def test_what_export_would_refuse(recipe: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = shutil.copytree(recipe["tokenizer_dir"], tmp_path / "other")
    stated = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(stated))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.dump(recipe | {"tokenizer_dir": str(folder)}))
    (finding,) = checks._exportable(read_document(path))
    assert (finding.severity, finding.key) == ("error", "tokenizer_dir")
    assert re.search(message, finding.problem)


def test_a_tokenizer_of_one_token_more(recipe: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(recipe["tokenizer_dir"], tmp_path / "other")
    changed = recipe | {
        "tokenizer_dir": str(make_tokenizer(folder, 65)),
        "data": {"class_path": "litgpt.data.TinyLlama"},
    }
    finding = found(changed, tmp_path)["tokenizer_dir"]
    assert "65 tokens, ids up to 64, the model embeddings for 64" in finding.problem


def test_folders(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(checks, "ORPHAN", 0.1)
    with locked(run):
        assert "is in use: another launch" in found(recipe, tmp_path, run=run)["out_dir"].problem
    for name in (".before-1", ".recipe.yaml", ".launch.json"):  # killed after --restart, or before its record was there
        (run / name).mkdir()
    assert found(recipe, tmp_path, run=run) == {}
    (run / "recipe.yaml").touch()
    assert "did not write" in found(recipe, tmp_path, run=run)["out_dir"].problem, "the user's"
    (run / "recipe.yaml").unlink()
    other = recipe | {"train": recipe["train"] | {"min_lr": 1e-5, "micro_batch_size": 4}}
    record = {"start": {"fingerprint": None}, "data": {"manifest_sha256": None}, "launches": []}
    write_json(run / "launch.json", {"recipe": other, **record})
    finding = found(recipe, tmp_path, run=run)["out_dir"]
    assert "\n  train.min_lr: 1e-05 before, 0.0001 now\n" in finding.problem
    assert found(recipe, tmp_path, run=run, restart=True) == {}


def test_bytes(recipe: dict[str, Any], tmp_path: Path) -> None:
    """A bit flips without a change of size: only --verify full reads it."""
    shard = next(Path(recipe["data"]["init_args"]["data_path"]).rglob("*.ds"))
    content = shard.read_bytes()
    try:
        shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert found(recipe, tmp_path) == {}
        assert "has SHA-256" in found(recipe, tmp_path, verify="full")["data.init_args.data_path"].problem
    finally:
        shard.write_bytes(content)
    weights = Path(recipe["initial_checkpoint_dir"]) / "lit_model.pth"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-100])
        assert "is not a whole PyTorch checkpoint" in found(recipe, tmp_path)["initial_checkpoint_dir"].problem
    finally:
        weights.write_bytes(content)


def test_settings_read_from_source_are_those_of_the_imported_litgpt() -> None:
    import inspect

    from litgpt.pretrain import setup

    from inheritune_lit.data import DistilledTokens, PackedTokens

    parameters = inspect.signature(setup).parameters
    assert list(pretrain_settings()) == list(parameters)
    for name, parameter in parameters.items():
        ours = pretrain_settings()[name].default
        assert repr(ours) == repr(parameter.default), name
    for module in (PackedTokens, DistilledTokens):
        read = inspect.signature(data_settings(module.__name__)).parameters
        assert list(map(str, read.values())) == list(map(str, inspect.signature(module).parameters.values()))


def test_gpus_by_their_drivers_names() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA H200": "h200",
        "NVIDIA A100-SXM4-80GB": "a100-80",
        "NVIDIA A100-PCIE-40GB": "a100-40",
        "NVIDIA RTX A6000": "a6000",
        "NVIDIA A40": "a40",
        "NVIDIA GeForce RTX 3090": "rtx3090",
        "NVIDIA A4000": None,
        "NVIDIA RTX A4000": None,
        "NVIDIA GeForce RTX 3090 Ti": None,
        "Tesla T4": None,
    }
    assert {name: gpu_key(name) for name in names} == names
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert peak_flops("Tesla T4") is None


FAKE = """#!/bin/bash
echo "$0 $@" >> calls
"""
# the limit comes at once, when the script does not even know the process it has started: bash is made to wait there
SLOW_BASH = "trap '[[ $BASH_COMMAND != run=* ]] || sleep 0.5' DEBUG"
FAKE_INHERITUNE = """#!/bin/bash
trap 'echo saved >> calls; exit 143' TERM
echo "$0 $@" >> calls
kill -TERM $PPID
for i in $(seq 200); do sleep 0.05; done & wait
"""


def test_slurm_script_under_a_fake_slurm(tmp_path: Path) -> None:
    """The script is what bash takes; told to stop, it lets the run save, and puts the job back into the queue."""
    script = ROOT / "recipes/slurm.sbatch"
    for line in ("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--requeue", "--signal=B:TERM@300"):
        assert f"#SBATCH {line}\n" in script.read_text()
    for name, text in {"scontrol": FAKE, "inheritune": FAKE_INHERITUNE}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "slow").write_text(SLOW_BASH)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_NTASKS_PER_NODE": "8", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BASH_ENV": str(tmp_path / "slow")}
    arguments = ["recipes/openllama3b_n13.yaml", "--keep_last", "2"]
    subprocess.run(["bash", script, *arguments], cwd=tmp_path, env=environment, check=False)
    first, saved, requeued = (tmp_path / "calls").read_text().splitlines()
    assert first.endswith(
        "pretrain recipes/openllama3b_n13.yaml --keep_last 2 --devices 8 --nodes 2 "
        "--launcher srun --kill-on-bad-exit=1 --cpus-per-task=4 --save_on_signal --grace 270"
    )
    assert saved == "saved"
    assert requeued == f"{tmp_path}/scontrol requeue 77"


def test_arguments_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InheritError, match="--launcher 'srun \"' is no command: No closing quotation"):
        pretrain(tmp_path / "recipe.yaml", launcher='srun "')
    with pytest.raises(InheritError, match="--devices 0: expected 1 or more"):
        pretrain(tmp_path / "recipe.yaml", devices=0)
    with pytest.raises(InheritError, match="pass --keep_last, too"):
        pretrain(tmp_path / "recipe.yaml", keep_every=100)


def test_what_is_absent_stops_a_launch_but_no_dry_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["data"]["init_args"]["data_path"] = str(tmp_path / "elsewhere")
    assert "elsewhere is not on this machine" in found(recipe, tmp_path)["data.init_args.data_path"].problem
    assert found(recipe, tmp_path, dry_run=True) == {}
