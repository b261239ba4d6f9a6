"""The same pipeline on many machines, by datatrove's own executors for Slurm and Ray; their folders must be shared.

Neither knows of our progress bar, and a Slurm job ends long after the command that submits it. So the command is given
again to go on: what is done has its completion markers, wherever it ran.
"""

import subprocess
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json

JOB = "slurm_job.json"


class Submitted(Exception):
    """Not an error: the work goes on in a Slurm job, which the message names."""


def run_on_cluster(
    name: str, steps: list[Any], work: Path, options: dict[str, Any], *, tasks: int, workers: int | None
) -> None:
    """Runs the tasks that are not done, or has Slurm run them.

    Args:
        name: slurm or ray.
        steps: The pipeline.
        work: Folder of logs and completion markers.
        options: More of datatrove's own arguments: `partition` and `time`, which Slurm needs, `cpus_per_task`, ….
        tasks: How many.
        workers: How many run at the same time; None is as many as the cluster has room for.

    Raises:
        InheritError: datatrove knows no such option, or one is missing; or what the two below raise.
        Submitted: unless all were done, by Slurm.
    """
    make, run = (SlurmPipelineExecutor, _on_slurm) if name == "slurm" else (RayPipelineExecutor, _on_ray)
    defaults = {"job_name": "inheritune_prepare"} if name == "slurm" else {}
    try:
        executor = make(steps, tasks=tasks, workers=workers or -1, logging_dir=str(work), **defaults, **options)
    except TypeError as error:
        raise InheritError(
            f"executor_options for {make.__name__}: {str(error).partition('() ')[2] or error}."
        ) from error
    run(executor, work)


def _on_slurm(executor: Any, work: Path) -> None:
    """Raises InheritError where the job that was submitted before has not ended, or there is no Slurm here."""
    todo = executor.get_incomplete_ranks()
    if not todo:
        return
    if (work / JOB).exists() and _is_queued(job := read_json(work / JOB, "Slurm job")["id"]):
        raise InheritError(f"Slurm job {job} still does this work. Run the command again when it has ended.")
    try:
        executor.run()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InheritError(
            f"Can't submit to Slurm: {error}. Run it where sbatch works, or set executor: local."
        ) from error
    write_json(work / JOB, {"id": executor.job_id})
    raise Submitted(
        f"Submitted Slurm job {executor.job_id}: {len(todo)} of {executor.tasks} tasks, logs in {work / 'logs'}. "
        "When it has ended, run the same command again to resume."
    )


def _is_queued(job: str) -> bool:
    try:
        found = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise InheritError(f"Can't ask Slurm about job {job}: {error}. Run it where squeue works.") from error
    return found.returncode == 0 and bool(found.stdout.strip())  # an id that Slurm has forgotten is an error to it


def _on_ray(executor: Any, work: Path) -> None:
    """On the Ray cluster of RAY_ADDRESS, or on this machine; InheritError without Ray, or where tasks failed."""
    try:
        import ray
    except ImportError as error:
        raise InheritError("executor is ray, but Ray is not installed: pip install 'inheritune_lit[ray]'.") from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    executor.run()
    if failed := executor.get_incomplete_ranks():
        raise InheritError(
            f"{len(failed)} of {executor.tasks} tasks failed, the first of them task {failed[0]}. Finished tasks are "
            f"kept. What happened is in {work / 'logs' / f'task_{failed[0]:05d}.log'}."
        )
