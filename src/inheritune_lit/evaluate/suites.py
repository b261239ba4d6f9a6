"""Suites: which tasks, which number of each, with how many examples; checked against lm-eval before anything runs."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.paths import meant
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.recipes.listing import shipped

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


@dataclass(frozen=True)
class SuiteTask:
    """One line of a suite. lm-eval knows the question; this says what is reported of it."""

    name: str
    """As lm-eval knows it: a task or a group of tasks, such as mmlu"""
    metric: str
    """acc, acc_norm, …; with a filter of lm-eval's other than none: exact_match,strict-match"""
    num_fewshot: int
    """Solved examples before the question"""
    version: str
    """lm-eval's version of the task: scores of different versions are not comparable"""

    @property
    def key(self) -> str:
        """The metric's name among lm-eval's results."""
        return self.metric if "," in self.metric else f"{self.metric},none"


@dataclass(frozen=True)
class Suite:
    """Tasks that are reported together."""

    name: str
    tasks: tuple[SuiteTask, ...]
    task_dir: Path | None = None
    """Task definitions next to lm-eval's own"""

    def only(self, names: Collection[str]) -> "Suite":
        """The suite with some of its tasks.

        Raises:
            InheritError: a name is none of its tasks'.
        """
        known = [task.name for task in self.tasks]
        if unknown := [name for name in names if name not in known]:
            raise InheritError(
                f"The suite {self.name} has no task {', '.join(unknown)}. Its tasks: {', '.join(known)}. "
                "Other tasks of lm-eval go into a suite file of your own; recipes/eval/ shows how."
            )
        return Suite(self.name, tuple(task for task in self.tasks if task.name in names), self.task_dir)


def read_suite(suite: str) -> Suite:
    """Reads a shipped suite by its name, or a suite file.

    Raises:
        InheritError: there is none of that name, or the file is no suite.
    """
    path = Path(suite) if suite.endswith((".yaml", ".yml")) else shipped() / "eval" / f"{suite}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(file.stem for file in (shipped() / "eval").glob("*.yaml"))
        raise InheritError(f"No suite {suite}: expected one of {', '.join(names)}, or a YAML file.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InheritError(f"Can't read the suite {path}: {error}") from error
    try:
        if repeated := read_document(path).repeated:
            raise ValueError(f"keys that stand more than once: {', '.join(repeated)}")
        if extra := content.keys() - {"tasks", "task_dir"}:
            raise ValueError(f"unknown keys {', '.join(map(str, sorted(extra)))}")
        tasks = tuple(_task(name, entry) for name, entry in content["tasks"].items())
        task_dir = path.parent / meant(content["task_dir"]) if "task_dir" in content else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InheritError(
            f"{path} is no suite ({type(error).__name__}: {error}): expected `tasks:` with a line such as "
            "`piqa: {metric: acc, num_fewshot: 0, version: 1.0}` for each task."
        ) from error
    if not tasks or (task_dir and not task_dir.is_dir()):
        raise InheritError(f"{path}: " + ("no tasks." if not tasks else f"task_dir {task_dir} is no folder."))
    return Suite(path.stem, tasks, task_dir)


def _task(name: str, entry: Mapping[str, Any]) -> SuiteTask:
    if extra := entry.keys() - {"metric", "num_fewshot", "version"}:
        raise ValueError(f"{name}: unknown keys {', '.join(map(str, sorted(extra)))}")
    if not isinstance(entry["num_fewshot"], int) or entry["num_fewshot"] < 0:
        raise ValueError(f"{name}: num_fewshot is {entry['num_fewshot']!r}, expected 0 or more")
    return SuiteTask(name, str(entry["metric"]), entry["num_fewshot"], str(entry["version"]))


@cache
def registry(task_dir: Path | None = None) -> "TaskManager":
    """lm-eval's tasks and those of a folder; reading all their YAML takes some seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(task_dir) if task_dir else None)


def definitions(name: str, manager: "TaskManager") -> Iterator[dict[str, Any]]:
    """The YAML of a task, or of all tasks in a group; functions in it are not imported, no data are loaded.

    Raises:
        InheritError: lm-eval does not know the name.
    """
    entry = manager.task_index.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`lm_eval --tasks list` shows them."
        raise InheritError(f"This lm-eval has no task {name!r}. {hint}")
    definition = entry.cfg or {}
    if isinstance(definition.get("task"), str):
        yield definition
        return
    # a tag lists its tasks in the index; a group, in its YAML
    for member in definition.get("task") or sorted(entry.tags):
        yield from definitions(member, manager)


def check_suite(suite: Suite, manager: "TaskManager") -> None:
    """Compares what a suite expects with the task definitions of the lm-eval that is installed.

    Raises:
        InheritError: a task is missing, has another version, does not report the metric, or would not heed the
            number of few-shot examples. All problems are named at once.
    """
    problems = [problem for task in suite.tasks for problem in _problems(task, manager)]
    if problems:
        raise InheritError(
            "\n  ".join([f"The suite {suite.name} does not fit the lm-eval that is installed:", *problems])
        )


def _problems(task: SuiteTask, manager: "TaskManager") -> Iterator[str]:
    try:
        members = list(definitions(task.name, manager))
    except InheritError as error:
        yield f"{task.name}: {error}"
        return
    found = str((manager.task_index[task.name].cfg or {}).get("metadata", {}).get("version"))
    if found != task.version:
        yield f"{task.name}: its version is {found}, the suite expects {task.version}. Numbers are not comparable."
    metric = task.metric.split(",")[0]
    for member in members:
        metrics = [entry["metric"] for entry in member.get("metric_list", [])]
        if metric not in metrics:
            yield f"{member['task']}: it has no metric {metric!r}, only {', '.join(map(str, metrics))}"
        if member.get("num_fewshot") == 0 != task.num_fewshot:
            # lm-eval ignores another number in silence
            yield f"{member['task']}: lm-eval runs it with 0 examples always, the suite expects {task.num_fewshot}"
