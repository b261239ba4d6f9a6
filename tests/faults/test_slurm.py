"""A job that its scheduler stops and puts back into the queue, on a stand-in for Slurm that runs it at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.faults import Fault
from helpers.models import ROOT
from helpers.small_runs import make_recipe, same_state

from inheritune_lit.pretrain import train
from inheritune_lit.runs.folder import read_run

COMMANDS = {
    # runs the job; the first time, it gives notice of the time limit once four steps are done
    "sbatch": """#!/bin/bash
        for attempt in 1 2 3; do
            rm -f "$SLURM/requeued"
            SLURM_JOB_ID=77 bash "$@" >>"$SLURM/log" 2>&1 &
            job=$!
            if [ $attempt = 1 ]; then
                until grep -qs "step 4 " "$RUN/pretrain.log"; do kill -0 $job || exit 1; sleep 0.05; done
                kill -TERM $job
            fi
            wait $job
            code=$?
            [ -e "$SLURM/requeued" ] || exit $code
        done""",
    "srun": """#!/bin/bash
        echo "$@" >>"$SLURM/calls"
        while [[ $1 == --* ]]; do shift; done
        exec "$@" """,
    "scontrol": """#!/bin/bash
        [ "$*" = "requeue 77" ] && touch "$SLURM/requeued" """,
    "inheritune": f"""#!/bin/bash
        exec {sys.executable} -m inheritune_lit "$@" """,
}


@pytest.mark.faults_long
def test_a_job_out_of_time_saves_is_put_back_and_ends_in_the_same_bits(tmp_path: Path, fault: Fault) -> None:
    recipe = make_recipe(tmp_path, steps=200) | {"out_dir": str(tmp_path / "run")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    places = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM": str(tmp_path), "RUN": str(tmp_path / "run")}
    places |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "1"}

    with fault(tmp_path / "open_llama_tiny", tmp_path / "tokens"):
        done = subprocess.run(
            [tmp_path / "sbatch", ROOT / "recipes/slurm.sbatch", tmp_path / "recipe.yaml"],
            env=os.environ | places,
            check=False,
        )
        assert done.returncode == 0, (tmp_path / "log").read_text()[-3000:]
        assert (tmp_path / "calls").read_text().count("--kill-on-bad-exit=1") == 2, "once before, once after"
        launches = read_run(tmp_path / "run").receipt["launches"]
        assert len(launches) == 2
        train(recipe, tmp_path / "calm")
        assert same_state(tmp_path / "run", tmp_path / "calm")
