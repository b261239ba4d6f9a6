"""A suite's results: one JSON file a model and suite, rewritten after every task, resumed after an interruption."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.evaluate.suites import Suite, SuiteTask

FORMAT = 2
# Scores of two runs belong together if these are equal.
KEY = ("format", "kind", "suite", "limit", "settings", "versions")
MODEL_KEY = ("fingerprint", "settings_sha256")


def versions() -> dict[str, str]:
    """The versions of what decides about a score."""
    names = ("inheritune_lit", "lm_eval", "transformers", "torch", "datasets")
    return {name: importlib.metadata.version(name) for name in names}


class Results:
    """The results of one model on one suite: those that an earlier run wrote, and the new ones.

    Args:
        path: The JSON file.
        header: Everything but the tasks.
        overwrite: Start over, whatever the file holds.

    Raises:
        InheritError: the file holds results of another model, or made with other settings or versions.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self.content: dict[str, Any] = {**header, "tasks": {}}
        if overwrite or not path.exists():
            return
        before = read_json(path, "results")
        if lines := differences(_key(before), _key(self.content)):
            raise InheritError(
                "\n  ".join([f"{path} holds results that can't be put together with new ones:", *lines])
                + "\nPass --overwrite to start over, or another --out_dir."
            )
        self.content = {**before, "command": header["command"]}

    def pending(self, suite: Suite, data: Mapping[SuiteTask, str | None]) -> list[SuiteTask]:
        """The tasks that have no result yet.

        Args:
            suite: What is asked for.
            data: Which questions each task is on, by harness.data_sha256.

        Raises:
            InheritError: a task's result is of another metric, few-shot count or version than the suite's, or on other
                questions.
        """
        done = self.content["tasks"]
        lines = []
        for task in suite.tasks:
            now = {name: getattr(task, name) for name in ("metric", "num_fewshot", "version")}
            now |= {"data_sha256": data[task]}
            found = done.get(task.name, now)
            lines += [f"{task.name} {line}" for line in differences({name: found.get(name) for name in now}, now)]
        if lines:
            raise InheritError(
                "\n  ".join([f"{self.path} holds results of another suite or on other questions:", *lines])
                + "\nPass --overwrite to start over, or another --out_dir."
            )
        return [task for task in suite.tasks if task.name not in done]

    def add(self, task: SuiteTask, result: Mapping[str, Any]) -> None:
        """Writes a task's result at once, so that an interruption costs one task."""
        self.content["tasks"][task.name] = dict(result)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json_whole(self.path, self.content)


def _key(content: Mapping[str, Any]) -> dict[str, Any]:
    model = content.get("model", {})
    return {name: content.get(name) for name in KEY} | {"model": {name: model.get(name) for name in MODEL_KEY}}


def line(name: str, result: Mapping[str, Any]) -> str:
    """A task's result for people, in percent with its standard error."""
    error = "" if result["stderr"] is None else f" ± {100 * result['stderr']:.2f}"
    return (
        f"{name:<16} {result['metric']:<8} {result['num_fewshot']}-shot  {100 * result['value']:6.2f}{error} %  "
        f"({result['samples']:,} questions, {result['seconds']:.0f} s)"
    )
