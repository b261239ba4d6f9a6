"""What may be said of evaluation scores: comparable or not, bold, within noise, no better than guessing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inheritune_lit import published
from inheritune_lit.base.errors import InheritError
from inheritune_lit.evaluate.cloze import CHOICES
from inheritune_lit.report.subjects import Subject


@dataclass(frozen=True)
class Score:
    """Of one model on one task, in per cent."""

    value: float
    stderr: float | None


Scores = Mapping[str, Score]
"""By task"""


def known_tasks() -> dict[str, published.Task]:
    """Every task that a published table has, by lm-eval's name for it."""
    tables = (published.scores(name) for name in published.SCORE_TABLES)
    return {name: task for table in tables for name, task in table.tasks.items()}


def measured(evaluation: Mapping[str, Any]) -> dict[str, Score]:
    return {
        name: Score(100 * task["value"], None if task.get("stderr") is None else 100 * task["stderr"])
        for name, task in evaluation["tasks"].items()
    }


def printed(model: published.Model, tasks: Mapping[str, published.Task]) -> dict[str, Score]:
    """A published model's scores, with the standard error that follows from the number of questions."""
    return {name: Score(value, _binomial(value, tasks[name])) for name, value in model.scores.items()}


def shown(table: published.Scores) -> list[published.Model]:
    """The models of a published table, but for the paper's further runs, of which it has one score each."""
    return [model for model in table.models if 2 * len(model.scores) >= len(table.tasks)]


def _binomial(value: float, task: published.Task) -> float | None:
    share = value / 100
    return 100 * math.sqrt(share * (1 - share) / task.questions) if task.is_count else None


def is_noise(one: Score, other: Score) -> bool:
    """Whether two scores differ by at most two standard errors of their difference, as if of different questions.

    Where one's error is not known, it is taken to be as large as the other's.
    """
    errors = [error for error in (one.stderr, other.stderr) if error is not None]
    if not errors:
        return False
    error = math.hypot(errors[0], errors[-1])
    return abs(one.value - other.value) <= 2 * error


def chance(task: str) -> float | None:
    """Per cent that guessing scores, or always giving the commonest answer, whichever is more; None if not known."""
    if task == "next_line":  # ours, of the suite smoke
        return 100 / CHOICES
    known = known_tasks().get(task)
    return None if known is None or known.chance is None else max(known.chance, known.constant or 0)


def is_chance(score: Score, task: str) -> bool:
    """Whether a score is not above chance by more than two standard errors; False where chance is not known."""
    level = chance(task)
    return level is not None and score.value <= level + 2 * (score.stderr or 0)


def is_bold(value: float, reference: float | None, baselines: Sequence[float], rule: published.BoldRule) -> bool:
    """The paper's rule, on scores of one task in per cent."""
    if reference is not None and value >= rule.share_of_reference * reference:
        return True
    return sum(value > baseline for baseline in baselines) >= rule.baselines_beaten


def check_comparable(suite: str, subjects: Sequence[Subject], table: published.Scores | None) -> None:
    """Whether scores may stand in one column.

    Raises:
        InheritError: a task's metric, version or number of examples differs between two models.
    """
    seen: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for subject in subjects:
        for name, task in subject.evaluations[suite]["tasks"].items():
            how = (metric_of(task), task["num_fewshot"], str(task["version"]))
            other, theirs = seen.setdefault(name, (subject.name, how))
            if how != theirs:
                raise InheritError(
                    f"{name} of {other} is {_how(*theirs)}, of {subject.name} {_how(*how)}: these scores can't stand "
                    "in one column. Evaluate both in the same way, or report on them apart."
                )
    for name, task in (table.tasks if table else {}).items():
        if name in seen and (task.metric, task.num_fewshot) != seen[name][1][:2]:
            subject_name, how = seen[name]
            raise InheritError(
                f"{name} of {subject_name} is {_how(*how)}, the published scores are "
                f"{_how(task.metric, task.num_fewshot)}: these can't stand in one column. Evaluate with the "
                "table's own suite, or pass --baselines none."
            )


def metric_of(task: Mapping[str, Any]) -> str:
    return str(task["metric"]).removesuffix(",none")


def _how(metric: str, num_fewshot: int, version: str | None = None) -> str:
    return f"{metric}, {num_fewshot}-shot" + (f", version {version}" if version is not None else "")


def bold_in(table: published.Scores | None, task: str, value: float) -> bool:
    """Whether the paper would set a score of ours in bold; never in a table that it does not use the rule in."""
    if table is None or table.bold is None or task not in table.tasks:
        return False
    reference = table.of_role("reference")[0].scores.get(task)
    baselines = [model.scores[task] for model in table.of_role("baseline") if task in model.scores]
    return is_bold(value, reference, baselines, table.bold)


def table_for(suite: str, subjects: Sequence[Subject], baselines: str) -> published.Scores | None:
    """The published table whose tasks a suite has: `auto` takes the one with most of them, if it is the better half."""
    tasks = {name for s in subjects for name in s.evaluations[suite]["tasks"]}
    wanted = published.SCORE_TABLES if baselines == "auto" else tuple(baselines.split(","))
    tables = [published.scores(name) for name in wanted if name in published.SCORE_TABLES]
    best = max(tables, key=lambda table: len(tasks & table.tasks.keys()), default=None)
    if best is None or not tasks & best.tasks.keys():
        return None
    if baselines == "auto" and 2 * len(tasks & best.tasks.keys()) < len(tasks):
        return None
    return best
