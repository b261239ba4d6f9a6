"""The tables of evaluation scores, beside published ones."""

import math
from collections.abc import Sequence
from dataclasses import replace

from inheritune_lit import published
from inheritune_lit.report.scores import (
    Score,
    Scores,
    bold_in,
    chance,
    check_comparable,
    is_chance,
    is_noise,
    known_tasks,
    measured,
    metric_of,
    printed,
    shown,
)
from inheritune_lit.report.subjects import Subject
from inheritune_lit.report.tables import NOTHING, Cell, Row, Table, short_count, signed

NOISE, CHANCE = "≈", "°"


def scores_table(suite: str, subjects: Sequence[Subject], table: published.Scores | None) -> Table:
    """All scores of a suite, the published models' first.

    Raises:
        InheritError: they can't stand in one column.
    """
    check_comparable(suite, subjects, table)
    names = list(dict.fromkeys(name for s in subjects for name in s.evaluations[suite]["tasks"]))
    reference = table.of_role("reference")[0] if table and table.bold else None
    theirs = printed(reference, table.tasks) if table and reference else {}
    rows = _published_rows(table, names, theirs) if table else []
    rows += [_row(s.name, s.start, measured(s.evaluations[suite]), names, theirs, table) for s in subjects]
    notes = [*_limits(suite, subjects), *_reading(names, table, reference)]
    return Table((Cell("model"), *(_head(name, suite, subjects) for name in names)), tuple(rows), tuple(notes))


def _head(name: str, suite: str, subjects: Sequence[Subject]) -> Cell:
    task = next(s.evaluations[suite]["tasks"][name] for s in subjects if name in s.evaluations[suite]["tasks"])
    known = known_tasks().get(name)
    return Cell(known.title if known else name, f"{metric_of(task)} {task['num_fewshot']}-shot v{task['version']}")


def _row(
    label: str, detail: str, scores: Scores, names: Sequence[str], reference: Scores, rule: published.Scores | None
) -> Row:
    """A model's scores; in bold what `rule`, the table that the paper uses its rule in, sets so."""
    cells = (_cell(n, scores.get(n), reference, n in scores and bold_in(rule, n, scores[n].value)) for n in names)
    return Row(label, tuple(cells), detail)


def _published_rows(table: published.Scores, names: Sequence[str], reference: Scores) -> list[Row]:
    rows = []
    for model in shown(table):
        tokens = f"{short_count(model.tokens)} tokens" if model.tokens else ""
        detail = ", ".join(filter(None, (tokens, f"from {model.reference}" if model.reference else "")))
        compared, rule = {} if model.role == "reference" else reference, table if model.role == "paper" else None
        row = _row(model.name, detail, printed(model, table.tasks), names, compared, rule)
        rows.append(replace(row, is_ours=False))
    return rows


def _cell(name: str, score: Score | None, reference: Scores, bold: bool) -> Cell:
    if score is None:
        return NOTHING
    marks = NOISE if name in reference and is_noise(score, reference[name]) else ""
    marks += CHANCE if is_chance(score, name) else ""
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
    if any(chance(name) is not None for name in names):
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
