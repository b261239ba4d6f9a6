"""Evaluation scores beside published ones: what is bold, what is within noise, what is no better than guessing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inheritune_lit import published
from inheritune_lit.commit import InheritError
from inheritune_lit.report.subjects import Subject
from inheritune_lit.report.tables import NOTHING, Cell, Row, Table, short_count, signed

NOISE, CHANCE = "≈", "°"


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


def is_chance(score: Score, task: published.Task | None) -> bool:
    """Whether a score is not above that of guessing, or of always the same answer, by more than two standard errors."""
    if task is None or task.chance is None:
        return False
    return score.value <= max(task.chance, task.constant or 0) + 2 * (score.stderr or 0)


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
            how = (_metric(task), task["num_fewshot"], str(task["version"]))
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


def _metric(task: Mapping[str, Any]) -> str:
    return str(task["metric"]).removesuffix(",none")


def _how(metric: str, num_fewshot: int, version: str | None = None) -> str:
    return f"{metric}, {num_fewshot}-shot" + (f", version {version}" if version is not None else "")


def scores_table(suite: str, subjects: Sequence[Subject], table: published.Scores | None) -> Table:
    """All scores of a suite, the published models' first.

    Raises:
        InheritError: they can't stand in one column.
    """
    check_comparable(suite, subjects, table)
    names = list(dict.fromkeys(name for s in subjects for name in s.evaluations[suite]["tasks"]))
    reference = table.of_role("reference")[0] if table and table.bold else None
    theirs = printed(reference, table.tasks) if table and reference else {}
    rows = [*_published_rows(table, names, theirs), *(_our_row(s, suite, table, names, theirs) for s in subjects)]
    notes = [*_limits(suite, subjects), *_reading(names, table, reference)]
    return Table((Cell("model"), *(_head(name, suite, subjects) for name in names)), tuple(rows), tuple(notes))


def _head(name: str, suite: str, subjects: Sequence[Subject]) -> Cell:
    task = next(s.evaluations[suite]["tasks"][name] for s in subjects if name in s.evaluations[suite]["tasks"])
    known = known_tasks().get(name)
    return Cell(known.title if known else name, f"{_metric(task)} {task['num_fewshot']}-shot v{task['version']}")


def _published_rows(table: published.Scores | None, names: Sequence[str], reference: Scores) -> list[Row]:
    if table is None:
        return []
    rows = []
    for model in table.models:
        if 2 * len(model.scores) < len(table.tasks):  # the paper's other runs: one score each
            continue
        scores = printed(model, table.tasks)
        cells = tuple(
            _cell(
                name,
                scores.get(name),
                {} if model.role == "reference" else reference,
                _bold(model, name, scores, table),
            )
            for name in names
        )
        rows.append(Row(model.name, cells, _where_from(model), is_ours=False))
    return rows


def _where_from(model: published.Model) -> str:
    tokens = f"{short_count(model.tokens)} tokens" if model.tokens else ""
    return ", ".join(part for part in (tokens, f"from {model.reference}" if model.reference else "") if part)


def _bold(model: published.Model, name: str, scores: Scores, table: published.Scores) -> bool:
    return model.role == "paper" and name in scores and bold_in(table, name, scores[name].value)


def bold_in(table: published.Scores | None, task: str, value: float) -> bool:
    """Whether the paper would set a score of ours in bold; never in a table that it does not use the rule in."""
    if table is None or table.bold is None or task not in table.tasks:
        return False
    reference = table.of_role("reference")[0].scores.get(task)
    baselines = [model.scores[task] for model in table.of_role("baseline") if task in model.scores]
    return is_bold(value, reference, baselines, table.bold)


def _our_row(
    subject: Subject, suite: str, table: published.Scores | None, names: Sequence[str], reference: Scores
) -> Row:
    scores = measured(subject.evaluations[suite])
    cells = tuple(
        _cell(name, scores.get(name), reference, name in scores and bold_in(table, name, scores[name].value))
        for name in names
    )
    return Row(subject.name, cells, subject.start)


def _cell(name: str, score: Score | None, reference: Scores, bold: bool) -> Cell:
    if score is None:
        return NOTHING
    marks = NOISE if name in reference and is_noise(score, reference[name]) else ""
    marks += CHANCE if is_chance(score, known_tasks().get(name)) else ""
    error = f"± {score.stderr:.1f}" if score.stderr is not None else ""
    return Cell(f"{score.value:.2f}", error, bold, marks)


def _limits(suite: str, subjects: Sequence[Subject]) -> list[str]:
    limits = {s.name: s.evaluations[suite].get("limit") for s in subjects}
    return [
        f"{name}: only the first {limit:g} questions of each task, so that its scores are worth little."
        for name, limit in limits.items()
        if limit
    ]


def _reading(names: Sequence[str], table: published.Scores | None, reference: published.Model | None) -> list[str]:
    notes = ["In per cent, ± one standard error."]
    if table:
        notes[0] += " Of published scores it is not printed: here it follows from the number of questions."
        notes.append(f"Published scores: {table.source}; {table.harness}.")
    if table and table.bold and reference:
        rule = table.bold
        notes.append(
            f"Bold, as the paper has it: at least {rule.share_of_reference:.0%} of {reference.name}'s score, or better "
            f"than at least {rule.baselines_beaten} of {', '.join(m.name for m in table.of_role('baseline'))}. "
            "The rule knows no noise."
        )
        notes.append(f"{NOISE} within two standard errors of {reference.name}'s score.")
    if any((task := known_tasks().get(name)) and task.chance is not None for name in names):
        notes.append(f"{CHANCE} not above chance, or above always giving the commonest answer, by two standard errors.")
    return notes


def differences_table(suite: str, subjects: Sequence[Subject]) -> Table | None:
    """Each model's scores minus those of the random start; None without one, or with nothing to compare with it."""
    base = next((s for s in subjects if s.is_random), None)
    others = [s for s in subjects if s is not base]
    if base is None or not others:
        return None
    theirs = measured(base.evaluations[suite])
    names = list(theirs)
    rows = []
    for subject in others:
        ours = measured(subject.evaluations[suite])
        rows.append(Row(subject.name, tuple(_difference(ours.get(name), theirs[name]) for name in names)))
    note = (
        f"Minus {base.name}, in percentage points, ± one standard error of the difference, as if the two had answered "
        f"different questions: the true error is smaller. {NOISE} within two standard errors."
    )
    known = known_tasks()
    titles = (Cell("model"), *(Cell(known[name].title if name in known else name) for name in names))
    return Table(titles, tuple(rows), (note,))


def _difference(ours: Score | None, theirs: Score) -> Cell:
    if ours is None:
        return NOTHING
    known = ours.stderr is not None and theirs.stderr is not None
    error = f"± {math.hypot(ours.stderr or 0, theirs.stderr or 0):.1f}" if known else ""
    return Cell(signed(ours.value - theirs.value, 2), error, marks=NOISE if is_noise(ours, theirs) else "")


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


def losses_table(subjects: Sequence[Subject], baselines: str) -> tuple[Table, str] | None:
    """Published losses of GPT-2 for runs of GPT-2 to stand beside, and their title."""
    wanted = any(s.is_gpt2 for s in subjects) if baselines == "auto" else "gpt2_losses" in baselines.split(",")
    if not wanted:
        return None
    table = published.losses("gpt2_losses")
    rows = tuple(
        Row(
            f"{run.size}, {run.start}",
            (Cell(str(run.blocks or "–")), Cell(f"{run.steps // 1000}K"), Cell(f"{run.loss:.4f}"), Cell(run.data)),
            is_ours=False,
        )
        for run in table.runs
    )
    ours = tuple(_loss_row(subject) for subject in subjects if subject.validation)
    titles = tuple(map(Cell, ("size and start", "blocks", "steps", "validation loss", "data")))
    notes = (
        f"In nats per token. Published: {table.source}; {table.note}.",
        "Losses on different data can't be compared.",
    )
    return Table(titles, rows + ours, notes), table.title


def _loss_row(subject: Subject) -> Row:
    steps, data = subject.receipt.get("steps"), subject.receipt.get("data") or {}
    cells = (
        Cell(str(subject.blocks or "–")),
        Cell(f"{steps:,}" if steps else "–"),
        Cell(f"{subject.validation[-1][1]:.4f}"),
        Cell(str(data.get("path") or "–")),
    )
    return Row(subject.name, cells, subject.start)
