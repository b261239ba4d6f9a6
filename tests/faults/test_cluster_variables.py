"""Shells inside a cluster's job, and variables that one left: Lightning looks for a cluster where none is wanted."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import ARCHITECTURES
from helpers.small_runs import make_recipe
from litgpt.config import Config

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.pretrain import train
from inheritune_lit.pretrain.cluster import NAMES, PREFIXES, check_cluster
from inheritune_lit.pretrain.options import Options, Request
from inheritune_lit.surgery.starts import random_state

SALLOC = {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "1"}
SRUN = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"}
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8", "GROUP_RANK": "0"}
SHELLS = {
    "salloc -n 8": SALLOC,
    "srun -n 8": SALLOC | SRUN,
    "torchrun": TORCHRUN | {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "gone.example", "MASTER_PORT": "29500"},
    "left by torchrun": TORCHRUN,
    "jsrun": {
        "LSB_JOBID": "1",
        "LSB_DJOB_RANKFILE": "/gone",
        "JSM_NAMESPACE_LOCAL_RANK": "1",
        "JSM_NAMESPACE_SIZE": "8",
    },
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3", "PMI_SIZE": "8", "PMIX_RANK": "3"},
}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in NAMES or name.startswith((*PREFIXES, "SLURM_", "LSB_", "JSM_")):
            monkeypatch.delenv(name)


def inside(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    for name, value in SHELLS[shell].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("shell", SHELLS)
def test_random_start(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`surgery --start random` draws the same weights in every shell."""
    name, small, _ = ARCHITECTURES["llama"]
    config = Config.from_name(name, **small)
    expected = random_state(config, 1)
    inside(monkeypatch, shell)
    found = random_state(config, 1)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_recipe(tmp_path_factory.mktemp("cluster"), 4)


PRINT = "import json, os, sys; print(json.dumps(dict(os.environ))); sys.exit(7)"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("launcher", [False, True])
def test_what_the_training_sees(
    launcher: bool, shell: str, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of it, unless a launcher starts it, which needs it."""
    inside(monkeypatch, shell)
    (tmp_path / "python").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{PRINT}'\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr("inheritune_lit.pretrain.launch.sys.executable", str(tmp_path / "python"))
    options = Options(launcher="env" if launcher else "")
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="exit code 7"):
        train(recipe, run, environment={"OURS": "1"}, options=options)
    seen = json.loads((run / "pretrain.log").read_text().splitlines()[0])
    ours = {name for name in SHELLS[shell] if name in NAMES or name.startswith(PREFIXES)}
    assert seen["OURS"] == "1"
    assert ours & seen.keys() == (ours if launcher else set())


def said(launcher: str = "", **recipe: Any) -> list[tuple[str, str]]:
    asked = Request(Path("recipe.yaml"), launcher=launcher)
    return [(f.severity, f"{f.problem} {f.fix}") for f in check_cluster(Document({"devices": 1, **recipe}), asked)]


@pytest.mark.parametrize("shell", SHELLS)
def test_preflight_names_the_variable(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not said()
    inside(monkeypatch, shell)
    ((severity, text),) = said()
    assert severity == "warning"
    for name, value in SHELLS[shell].items():
        if name in NAMES or name.startswith(PREFIXES):
            assert f"{name}={value}" in text


@pytest.mark.parametrize(
    ("variables", "launcher", "expected"),
    [
        ({}, "srun", ["SLURM_NTASKS=8, and SLURM_NTASKS_PER_NODE is not set"]),
        ({"SLURM_NTASKS_PER_NODE": "8"}, "srun", []),
        ({"SLURM_NTASKS_PER_NODE": "4"}, "srun --kill-on-bad-exit=1", ["SLURM_NTASKS_PER_NODE=4, and the run is"]),
        ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2"}, "srun", ["SLURM_NNODES=2, and the run is for 1"]),
        ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_JOB_NAME": "bash"}, "srun", ["SLURM_JOB_NAME=bash: Lightning"]),
        ({}, "srun --ntasks-per-node=8", []),
        ({}, "nice", []),
    ],
)  # fmt: skip
def test_preflight_of_a_launcher(
    variables: dict[str, str], launcher: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Lightning would raise in each task, or take for an interactive job."""
    for name, value in {**SALLOC, **variables}.items():
        monkeypatch.setenv(name, value)
    found = said(launcher, devices=8)
    assert len(found) == len(expected)
    for (severity, text), start in zip(found, expected, strict=True):
        assert severity == "error"
        assert text.startswith(start)
