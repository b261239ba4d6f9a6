"""`inheritune evaluate`: a model's scores on a suite of lm-eval's tasks, and its loss on held-out tokens."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inheritune_lit.base.command_line import given_command
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.base.folders import locked
from inheritune_lit.evaluate.harness import (
    DataOptions,
    ModelOptions,
    check_data,
    data_sha256,
    load_model,
    run_task,
    task_config,
)
from inheritune_lit.evaluate.held_out import held_out_loss
from inheritune_lit.evaluate.loss import usable_device
from inheritune_lit.evaluate.results import FORMAT, Results, line, versions
from inheritune_lit.evaluate.subject import EvaluatedModel, find
from inheritune_lit.evaluate.suites import Suite, check_suite, read_suite, registry


def evaluate(
    checkpoint: str,
    suite: str | None = None,
    tasks: str | None = None,
    limit: int | None = None,
    loss: Path | None = None,
    out_dir: Path | None = None,
    data_dir: Path | None = None,
    max_seq_length: int | None = None,
    batch_size: str = "auto",
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> None:
    """Scores on lm-eval's tasks, or the loss on held-out tokens.

    An evaluation that was interrupted resumes with its next task when the command is given again.

    Args:
        checkpoint: A run, a litGPT checkpoint folder, a Hugging Face folder, or a model's name on the hub.
        suite: low_data (the paper's ten tasks), gpt2, smoke, or a YAML file; low_data, unless only --loss is asked for.
        tasks: Only these tasks of the suite, with commas between.
        limit: Only the first questions of each task, for a try: such numbers are worth little.
        loss: Token shards of `inheritune prepare`; the validation loss over all of its held-out split is measured, and
            per domain.
        out_dir: Where SUITE.json and loss.json go; by default the folder evaluation/ in the checkpoint's.
        data_dir: A folder with the tasks' data sets by their names (nyu-mll/glue, …), copies of their repositories;
            by default they come from Hugging Face's cache or hub.
        max_seq_length: Tokens of a window for --loss; by default those of the run's recipe, or all the model takes.
        batch_size: Of lm-eval; auto is the largest that fits into the GPU, and 8 on the CPU.
        device: cpu, cuda, cuda:1, …; by default a GPU if there is one.
        dtype: What to compute in, as transformers names it; auto is the checkpoint's, or float32 on a CPU
            that is slower with that.
        trust_remote_code: Let data sets be loaded by scripts of their repositories, which run with your rights.
        overwrite: Start over, whatever results there are.
    """
    device = usable_device(device)
    subject = find(checkpoint)
    out_dir = out_dir or subject.out_dir
    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size)):
        raise InheritError(f"--batch_size is {batch_size}, expected auto or a number of questions.")
    if limit is not None and limit < 1:
        raise InheritError(f"--limit is {limit}, expected a number of questions, or none for all.")
    chosen = None
    if suite is not None or tasks is not None or loss is None:
        chosen = read_suite(suite or "low_data")
        chosen = chosen.only([name.strip() for name in tasks.split(",")]) if tasks else chosen
    if loss is not None:
        size = None if batch_size == "auto" else int(batch_size)
        _measure_loss(subject, loss, out_dir, max_seq_length, device, size)
    if chosen is not None:
        model = ModelOptions(device, dtype, batch_size)
        data = DataOptions(data_dir and data_dir.resolve(), trust_remote_code)
        _run_suite(subject, chosen, out_dir, limit, model, data, overwrite)


def _measure_loss(
    subject: EvaluatedModel, data: Path, out_dir: Path, length: int | None, device: str, batch_size: int | None
) -> None:
    length = length or subject.trained_length
    content = held_out_loss(subject.path, data, max_seq_length=length, device=device, batch_size=batch_size)
    out_dir.mkdir(parents=True, exist_ok=True)
    model = {"name": subject.name, "path": str(subject.path), "fingerprint": subject.fingerprint}
    write_json_whole(out_dir / "loss.json", {**content, "model": model, "command": given_command()})
    for name, numbers in {"all": content, **content["domains"]}.items():
        error = "" if numbers["stderr"] is None else f" ± {numbers['stderr']:.4f}"
        print(
            f"{name:<16} {numbers['mean']:.4f}{error} nats a token, perplexity {numbers['perplexity']:.4g}  "
            f"({numbers['windows']:,} windows of {content['max_seq_length']:,} tokens)"
        )
    print(f"→ {out_dir / 'loss.json'}")


def _run_suite(
    subject: EvaluatedModel,
    suite: Suite,
    out_dir: Path,
    limit: int | None,
    model: ModelOptions,
    data: DataOptions,
    overwrite: bool,
) -> None:
    print(f"{suite.name}: {len(suite.tasks)} tasks on {subject.name}", flush=True)
    manager = registry(suite.task_dir)
    check_suite(suite, manager)
    header = _header(subject, suite, limit, model)
    configs = {task: task_config(task, manager, data) for task in suite.tasks}
    digests = {task: data_sha256(config) for task, config in configs.items()}
    with _alone(out_dir, suite) as work_dir:
        results = Results(out_dir / f"{suite.name}.json", header, overwrite=overwrite)
        pending = results.pending(suite, digests)
        for name in [task.name for task in suite.tasks if task not in pending]:
            print(f"{line(name, results.content['tasks'][name])}  measured before", flush=True)
        for task in pending:
            check_data(task, configs[task], manager)
        if pending:
            lm = load_model(subject.as_hugging_face(work_dir), model)
            results.content["model"]["parameters"] = lm.model.num_parameters()
            for number, task in enumerate(pending, start=1):
                print(f"[{number}/{len(pending)}] {task.name}", flush=True)
                result = run_task(lm, task, configs[task], manager, limit)
                results.add(task, result | {"data_sha256": digests[task]})
                print(line(task.name, result), flush=True)
    print(f"→ {results.path}")


@contextmanager
def _alone(out_dir: Path, suite: Suite) -> Iterator[Path]:
    """A folder for the export, locked: a second evaluation of the suite would write over this one's results."""
    folder = out_dir / f".{suite.name}.work"
    with locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _header(subject: EvaluatedModel, suite: Suite, limit: int | None, model: ModelOptions) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": "evaluation",
        "suite": suite.name,
        "model": {
            "name": subject.name,
            "path": str(subject.path),
            "fingerprint": subject.fingerprint,
            "settings_sha256": subject.settings_sha256,
        },
        "limit": limit,
        "settings": {"dtype": model.dtype, "device": model.device.split(":")[0]},
        "versions": versions(),
        "command": given_command(),
    }
