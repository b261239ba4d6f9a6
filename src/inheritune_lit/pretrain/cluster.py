"""What a shell inside a cluster's job leaves in the environment, by which Lightning looks for a cluster.

Without --launcher, the training is one command on one machine, wherever it is started: it does not see these variables.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.pretrain.options import Request
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.recipe import Recipe

# by which Lightning 2.6 finds Slurm, torchrun, LSF and MPI, and a process's rank
NAMES = (
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "TORCHELASTIC_RUN_ID"),
    *("JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_RANK", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
PREFIXES = ("OMPI_COMM_WORLD_", "PMI_", "PMIX_")


def taken_away(launcher: Sequence[str], nodes: int) -> dict[str, None]:
    """The variables that the training is not to see, as listen() takes them; none where several nodes take part."""
    if launcher or nodes > 1:
        return {}
    return {name: None for name in os.environ if name in NAMES or name.startswith(PREFIXES)}


def check_cluster(document: Document, request: Request) -> list[Finding]:
    """Whether the tasks that a cluster will start are those that the recipe is for."""
    devices, nodes = Recipe(document).machines(request.devices, request.nodes)
    if not (launcher := request.before_python):
        there = {name: os.environ[name] for name in taken_away((), nodes)}
        if there.get("SLURM_NTASKS") == "1":
            there = {name: value for name, value in there.items() if not name.startswith("SLURM_")}
        if not there:
            return []
        text = f"The environment is a cluster's: {', '.join(f'{name}={there[name]}' for name in sorted(there))}."
        fix = "The training won't see it. Pass --launcher srun if each of the job's tasks is to be a GPU's process."
        return [Finding("warning", "devices", text, fix)]
    return _slurm(os.environ, launcher, devices, nodes) if launcher[0].endswith("srun") else []


def _slurm(there: Mapping[str, str], launcher: Sequence[str], devices: Any, nodes: int) -> list[Finding]:
    """What Lightning's SLURMEnvironment raises, or takes for an interactive job, in each task of srun."""
    findings = []
    if there.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        name = there["SLURM_JOB_NAME"]
        text = f"SLURM_JOB_NAME={name}: Lightning would start {devices} processes in each of srun's tasks."
        findings.append(Finding("error", "devices", text, "Give the job another name: export SLURM_JOB_NAME=train."))
    if any(option.startswith(("-n", "-N", "--ntasks", "--nodes")) for option in launcher[1:]):
        return findings  # srun's own say how many
    tasks, each = there.get("SLURM_NTASKS", "1"), there.get("SLURM_NTASKS_PER_NODE")
    if tasks != "1" and each is None:
        text = f"SLURM_NTASKS={tasks}, and SLURM_NTASKS_PER_NODE is not set, which Lightning asks for."
        fix = f"Ask Slurm for --nodes {nodes} --ntasks-per-node {devices or 'GPUS'} instead of --ntasks."
        findings.append(Finding("error", "devices", text, fix))
    wanted = {"SLURM_NTASKS_PER_NODE": devices, "SLURM_NNODES": nodes}
    for name, count in wanted.items():
        if count is not None and there.get(name, str(count)) != str(count):
            key = "devices" if count is devices else "num_nodes"
            text = f"{name}={there[name]}, and the run is for {count}: Lightning refuses it."
            findings.append(
                Finding("error", key, text, f"Pass --{key.removeprefix('num_')} {there[name]}, or ask for {count}.")
            )
    return findings
