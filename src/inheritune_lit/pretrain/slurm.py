"""`inheritune launch-script`: the batch script that runs a recipe on a cluster, and goes on when it is put back."""

import shlex
from pathlib import Path

from inheritune_lit.base.errors import InheritError

# One task a GPU: Fabric takes its ranks from Slurm, and srun hands a signal on to each. (torchrun would kill them 30 s
# after it, in the middle of a save.) srun is told the CPUs again, as since Slurm 22.05 it does not take them from the
# job. The launcher is one process on the first node, beside them.
SCRIPT = """\
#!/bin/bash
# {title}. Made by `{command}`; submit it with `sbatch`.
# Killed, preempted or out of time, it is put back into the queue and goes on from the newest checkpoint that is whole.
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --output={log_dir}/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{notice}
{setup}

stopped=0
trap 'stopped=1; kill -TERM $!' TERM  # $!: the signal may come before `run` is set
# in the background, as bash runs a trap only between commands
inheritune pretrain {recipe} --devices {gpus} --nodes {nodes} \\
  --launcher "srun --kill-on-bad-exit=1 --cpus-per-task={cpus}" --save_on_signal --grace {grace}{options} &
run=$!
wait $run
code=$?
if [ $stopped -eq 1 ]; then
  wait $run  # the first one ended with the trap
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def launch_script(
    recipe: Path,
    *,
    slurm: bool = False,
    nodes: int = 1,
    gpus: int = 8,
    time: str = "24:00:00",
    cpus: int = 4,
    notice: int = 300,
    setup: str = "# activate the environment here",
    log_dir: Path = Path(),
    options: str = "",
) -> None:
    """Print the batch script that runs `inheritune pretrain RECIPE` on a cluster; nothing is submitted.

    Args:
        recipe: A `litgpt pretrain` recipe.
        slurm: For Slurm, the one that is known.
        nodes: How many take part.
        gpus: Of each.
        time: The job's limit, as Slurm writes it. What is not done by then goes on in the next job.
        cpus: Of each GPU's process.
        notice: Seconds before the limit at which the run is told to save and stop: a step and a save must fit in.
        setup: A shell command that makes `inheritune` available.
        log_dir: Where Slurm writes what the job prints.
        options: More for `inheritune pretrain`, such as "--keep_last 2".
    """
    if not slurm:
        raise InheritError("Which cluster? Pass --slurm, the one kind that is known.")
    for name, value in {"nodes": nodes, "gpus": gpus, "cpus": cpus, "notice": notice}.items():
        if value < 1:
            raise InheritError(f"--{name} {value}: expected 1 or more.")
    if any(option.partition("=")[0] == "--restart" for option in options.split()):
        raise InheritError("--options --restart would begin anew at each return to the queue. Drop it.")
    _check_batch(Path(recipe), nodes * gpus)
    command = f"inheritune launch-script {recipe} --slurm --nodes {nodes} --gpus {gpus}"
    print(
        SCRIPT.format(
            title=f"{Path(recipe).stem} on {nodes} × {gpus} GPUs",
            command=command,
            name=shlex.quote(Path(recipe).stem),
            recipe=shlex.quote(str(recipe)),
            log_dir=shlex.quote(str(log_dir)),
            options=f" {options}" if options else "",
            **{"nodes": nodes, "gpus": gpus, "cpus": cpus, "time": time, "notice": notice, "setup": setup},
            grace=max(1, notice - 30),
        ),
        end="",
    )


def _check_batch(recipe: Path, world_size: int) -> None:
    from inheritune_lit.base.yaml_document import read_document
    from inheritune_lit.pretrain.schedule import accumulation

    train = read_document(recipe).get("train")
    if isinstance(train, dict) and {"global_batch_size", "micro_batch_size"} <= train.keys():
        accumulation(train, world_size)
