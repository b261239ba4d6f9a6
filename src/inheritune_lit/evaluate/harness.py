"""lm-eval run on one model: its data found, its model class filled, its numbers taken over as they are."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_of
from inheritune_lit.base.precision import in_fast_type
from inheritune_lit.checkpoint.folder import RECEIPT, refuse_code
from inheritune_lit.checkpoint.receipt import read_receipt
from inheritune_lit.evaluate.suites import SuiteTask, definitions
from inheritune_lit.export.reload import open_model

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

CPU_BATCH = 8  # without a GPU's out-of-memory error there is nothing to find the largest batch by


@dataclass(frozen=True)
class DataOptions:
    """Where the tasks' data sets come from."""

    data_dir: Path | None = None
    """A folder with copies of data set repositories by their names; None is Hugging Face's cache or hub"""
    trust_remote_code: bool = False
    """Whether scripts of data set repositories may run"""


@dataclass(frozen=True)
class ModelOptions:
    """How a model is run."""

    device: str = "cpu"
    """cpu, cuda, cuda:1, …"""
    dtype: str = "auto"
    """As transformers names it; auto is the checkpoint's, or float32 on a CPU that is slower with that"""
    batch_size: str = "auto"
    """A number, or auto: the largest that fits into the GPU, 8 on the CPU"""


def task_config(task: SuiteTask, manager: "TaskManager", data: DataOptions) -> dict[str, Any]:
    """lm-eval's definition of a task with only the place of its data, and the trust in them, replaced.

    lm-eval's own definitions say `trust_remote_code: true` for some data sets, which runs a script of the data set's
    repository with the user's rights. Here only the user says so.

    Args:
        task: Of a suite.
        manager: Where it is defined.
        data: Where its data set is.

    Raises:
        InheritError: `data_dir` has no folder of that name.
    """
    members = list(definitions(task.name, manager))
    names = {str(member["dataset_path"]) for member in members}
    options = {**(members[0].get("dataset_kwargs") or {}), "trust_remote_code": data.trust_remote_code}
    config: dict[str, Any] = {"dataset_kwargs": options}
    if (data_dir := data.data_dir) is None:
        return config
    if len(names) > 1:
        raise InheritError(
            f"The tasks of {task.name} are on several data sets ({', '.join(sorted(names))}), which --data_dir can't "
            "replace at once: list its tasks one by one in a suite of your own."
        )
    (name,) = names
    if not (data_dir / name).is_dir():
        raise InheritError(
            f"The data set {name} of task {task.name} is not in {data_dir}: expected the folder {data_dir / name}. "
            + how_to_fetch(name, data_dir)
        )
    return config | {"dataset_path": str((data_dir / name).resolve())}


def data_sha256(config: Mapping[str, Any]) -> str | None:
    """SHA-256 over the files of a task's data set in --data_dir; None if it is from Hugging Face's cache or hub."""
    if "dataset_path" not in config:
        return None
    folder = Path(config["dataset_path"])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hidden = {path for path in files if "/." in f"/{path.relative_to(folder)}"}  # such as the times of `hf download`
    return sha256_of((path for path in files if path not in hidden), folder)


def how_to_fetch(name: str, data_dir: Path | None) -> str:
    folder = data_dir or "DATA_DIR"
    return (
        f"Where there is a network, `hf download --repo-type dataset {name} --local-dir {folder}/{name}` fetches it "
        f"for --data_dir {folder}. Or evaluate with --limit 1 there, which fills the cache ($HF_HOME, by default "
        "~/.cache/huggingface); copy that, and set HF_DATASETS_OFFLINE=1 where there is none."
    )


def load_task(task: SuiteTask, config: dict[str, Any], manager: "TaskManager") -> "Task | Group":
    """lm-eval's task or group with its data, under our settings.

    lm-eval 0.4.13's public `load` takes settings for a task of its own, but passes a group's name on to its members.
    """
    entry, registry = manager.task_index[task.name], manager.task_index
    loaded: Task | Group = manager._factory.build(entry, overrides=dict(config), registry=registry)
    return loaded


def check_data(task: SuiteTask, config: dict[str, Any], manager: "TaskManager") -> None:
    """Loads a task's data once, so that one that is missing is known before hours of work and not after them.

    Raises:
        InheritError: naming the data set, what is wrong with it, and how to fetch it.
    """
    try:
        load_task(task, config, manager)
    except Exception as error:  # datasets raises a dozen classes
        name = str(config.get("dataset_path") or next(definitions(task.name, manager))["dataset_path"])
        if "trust_remote_code" in str(error):
            hint = (
                "A script of its repository loads it, which runs with your rights: read it, then pass "
                "--trust_remote_code."
            )
        else:
            hint = how_to_fetch(next(definitions(task.name, manager))["dataset_path"], None)
        raise InheritError(
            f"Can't load the data set {name} of task {task.name}: {type(error).__name__}: {error}\n{hint}"
        ) from error


def load_model(folder: Path, options: ModelOptions) -> "HFLM":
    """A Hugging Face folder as lm-eval's model.

    Args:
        folder: With config.json, weights and tokenizer.
        options: How to run it.

    Raises:
        InheritError: transformers can't load it or could be made to run code, or its weights are not those of its
            config.json.
    """
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils_hf import get_dtype

    refuse_code(folder)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not go along with data loading's forks
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every setting that was passed on purpose
    size = str(CPU_BATCH) if (options.batch_size, options.device) == ("auto", "cpu") else options.batch_size
    use_fast = _use_fast_tokenizer(folder)
    model = open_model(folder, get_dtype(options.dtype))
    model = in_fast_type(model, options.device) if options.dtype == "auto" else model
    try:
        return HFLM(
            pretrained=model.to(options.device), tokenizer=str(folder), use_fast_tokenizer=use_fast, batch_size=size
        )
    except Exception as error:  # transformers and tokenizers raise a dozen classes
        raise InheritError(
            f"transformers can't open the tokenizer in {folder}: {type(error).__name__}: {error}"
        ) from error


def _use_fast_tokenizer(folder: Path) -> bool:
    """Export finds out whether a model's fast tokenizer, lm-eval's default, encodes as its training data were."""
    if not (folder / RECEIPT).is_file():
        return True
    return bool(read_receipt(folder).get("tokenizer", {}).get("use_fast", True))


def run_task(
    lm: "HFLM", task: SuiteTask, config: dict[str, Any], manager: "TaskManager", limit: int | None
) -> dict[str, Any]:
    """One task by lm-eval, as one entry of the results; values are fractions.

    Raises:
        InheritError: lm-eval did not do what the suite says.
    """
    from lm_eval import simple_evaluate

    start = time.perf_counter()
    lm.batch_sizes.clear()  # auto's, of the task before: this one's questions may be longer
    output = simple_evaluate(
        lm,
        tasks=[load_task(task, config, manager)],
        num_fewshot=task.num_fewshot,
        limit=limit,
        task_manager=manager,
        log_samples=False,
    )
    scores = output["results"][task.name]
    shots, version = set(output["n-shot"].values()), str(output["versions"][task.name])
    if shots != {task.num_fewshot} or version != task.version or task.key not in scores:
        raise InheritError(
            f"lm-eval ran {task.name} version {version} with {sorted(shots)} examples and reports "
            f"{', '.join(scores)}; the suite expects version {task.version}, {task.num_fewshot} examples, {task.key}."
        )
    metric, filter_name = task.key.split(",")
    error = scores.get(f"{metric}_stderr,{filter_name}")
    return {
        "metric": task.metric,
        "value": float(scores[task.key]),
        "stderr": float(error) if isinstance(error, float) else None,
        "version": version,
        "num_fewshot": task.num_fewshot,
        "samples": sum(count["effective"] for count in output["n-samples"].values()),
        "seconds": time.perf_counter() - start,
        "batch_size": lm.batch_sizes.get(0, lm.batch_size),
        "dtype": str(lm.model.dtype).removeprefix("torch."),
    }
