"""The pipeline on clusters: a stand-in for Slurm that runs a job at once, and Ray itself where it is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.models import write_bpe
from helpers.texts import DOCUMENTS, bytes_of, jsonl

from inheritune_lit.base.errors import InheritError
from inheritune_lit.prepare.command import prepare

TASKS = 4
OPTIONS: dict[str, Any] = {"partition": "cpu", "time": "1:00:00", "cpus_per_task": 1, "srun_args": {"mem": 0}}
PROGRAMS = {
    # keeps the script and, unless told not to, runs it once for each task of the array; a job without one is ignored
    "sbatch": """
        script=${@: -1}
        for arg in "$@"; do case $arg in --export=*RUN_OFFSET=*) export RUN_OFFSET=${arg##*=} ;; esac; done
        echo "Submitted batch job 17"
        grep -q launch_pickled_pipeline "$script" || exit 0
        cp "$script" "$SLURM/script"
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
        for task in $(seq 0 "$last"); do
            [ "$task" = "$(cat "$SLURM/lost" 2>/dev/null)" ] && continue
            SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here SLURM_JOB_ID=17 bash "$script" >>"$SLURM/log" 2>&1
        done
    """,
    "srun": """
        while [ "${1#-}" != "$1" ]; do case $1 in -n) shift 2 ;; *) shift ;; esac; done
        exec "$@"
    """,
    "scontrol": "echo localhost",
    "squeue": 'cat "$SLURM/queue" 2>/dev/null || { echo "Invalid job id specified" >&2; exit 1; }',
    "launch_pickled_pipeline": f'exec {sys.executable} -m datatrove.tools.launch_pickled_pipeline "$@"',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the cluster, with its programs first on the path."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, body in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("SLURM", str(folder))
    return folder


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "corpus").mkdir()
    for i in range(6):
        (tmp_path / f"corpus/{i}.jsonl").write_bytes(jsonl([f"{i} {text}" for text in DOCUMENTS]))
    write_bpe(tmp_path / "bpe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(**options: Any) -> None:
    settings = {"val_share": 0.3, "tasks": TASKS} | options
    prepare("corpus", out_dir=Path("tokens"), tokenizer_dir=Path("bpe"), **settings)


@pytest.fixture
def by_hand(inputs: Path) -> dict[str, dict[str, bytes]]:
    """What this machine makes of it, with and without a budget."""
    made = {}
    for name, options in (("all", {}), ("budget", {"budget": 5000})):
        run(**options)
        made[name] = bytes_of(inputs / "tokens")
        shutil.rmtree(inputs / "tokens")
    return made


@pytest.mark.parametrize(("name", "options"), [("all", {}), ("budget", {"budget": 5000})])
def test_slurm_makes_the_same(
    slurm: Path, by_hand: dict[str, dict[str, bytes]], name: str, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**options, "executor": "slurm", "executor_options": OPTIONS}
    run(dry_run=True, **options)
    assert not list(Path().glob(".tokens*"))
    capsys.readouterr()
    run(**options)
    assert "Submitted Slurm job 17: 4 of 4 tasks" in capsys.readouterr().out
    script = (slurm / "script").read_text()
    assert "#SBATCH --partition=cpu\n" in script
    assert f"#SBATCH --array=0-{TASKS - 1}\n" in script
    assert not Path("tokens").exists()
    run(**options)
    assert bytes_of(Path("tokens")) == by_hand[name]


def test_slurm_goes_on_where_a_job_stopped(
    slurm: Path, by_hand: dict[str, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"executor": "slurm", "executor_options": OPTIONS}
    (slurm / "lost").write_text("2")
    run(**options)
    (slurm / "queue").write_text("17 cpu inheritune_prepare")
    with pytest.raises(InheritError, match=r"Slurm job 17 still does this work\. Run the command again when"):
        run(**options)
    (slurm / "queue").unlink()
    (slurm / "lost").unlink()
    run(**options)
    assert "1 of 4 tasks" in capsys.readouterr().out
    run(**options)
    assert bytes_of(Path("tokens")) == by_hand["all"]


def test_what_slurm_needs(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InheritError, match=r"executor_options for SlurmPipelineExecutor: missing 2 .* 'time' and 'part"
    ):
        run(executor="slurm")
    with pytest.raises(InheritError, match=r"unexpected keyword argument 'partitoin'"):
        run(executor="slurm", executor_options={"time": "1", "partition": "x", "partitoin": "cpu"})
    monkeypatch.setenv("PATH", str(inputs))
    with pytest.raises(InheritError, match=r"Can't submit to Slurm: .*sbatch.* Run it where sbatch works"):
        run(executor="slurm", executor_options=OPTIONS)


@pytest.mark.parametrize(("name", "options"), [("all", []), ("budget", ["--budget=5000"])])
def test_ray_makes_the_same(by_hand: dict[str, dict[str, bytes]], name: str, options: list[str]) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "inheritune_lit", "prepare", "corpus", "--out_dir=tokens", "--tokenizer_dir=bpe"]
    command += ["--val_share=0.3", f"--tasks={TASKS}", "--executor=ray", *options]
    subprocess.run([*command, '--executor_options={"mem_per_cpu_gb": 0.1}'], check=True, capture_output=True, text=True)
    assert bytes_of(Path("tokens")) == by_hand[name]


def test_ray_is_an_extra(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InheritError, match=r"Ray is not installed: pip install 'inheritune_lit\[ray\]'"):
        run(executor="ray")
