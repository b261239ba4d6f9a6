"""Scores as a picture: our models with their errors, the published ones, and chance, task by task."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import published
from inheritune_lit.base.figure import FAINT, GREY, INK, MARKERS, colours, drawing, legend
from inheritune_lit.report.scores import chance, known_tasks, measured, shown
from inheritune_lit.report.subjects import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_scores(suite: str, subjects: Sequence[Subject], table: published.Scores | None, stem: Path) -> Path:
    """Draws a suite's scores of those who have them, a row a task, as `stem`.png and `stem`.svg."""
    stem.parent.mkdir(exist_ok=True)
    names = list(dict.fromkeys(name for s in subjects for name in s.evaluations[suite]["tasks"]))
    known, shade = known_tasks(), colours({s.name: s.is_random for s in subjects})
    with drawing(stem, (7.2, 1.5 + 0.42 * len(names) + 0.2 * len(subjects))) as (axes,):
        entries: dict[str, Any] = {}
        for number, subject in enumerate(subjects):
            place = (number - (len(subjects) - 1) / 2) * min(0.2, 0.6 / len(subjects))
            scores = measured(subject.evaluations[suite])
            rows = [(row + place, scores[name]) for row, name in enumerate(names) if name in scores]
            look: dict[str, Any] = {"color": shade[subject.name], "marker": MARKERS[number % len(MARKERS)], "zorder": 3}
            entries[subject.name] = axes.errorbar(
                [score.value for _, score in rows],
                [row for row, _ in rows],
                xerr=[2 * (score.stderr or 0) for _, score in rows],
                linestyle="none",
                **look,
            )
        entries |= _others(axes, names, table)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), [known[name].title if name in known else name for name in names])
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.set_xlabel("score, per cent, ± 2 standard errors")
        legend(axes, entries)
    return stem


def _others(axes: "Axes", names: Sequence[str], table: published.Scores | None) -> dict[str, Any]:
    """Draws the published models, and where guessing or always giving the commonest answer gets; for the legend."""
    models = shown(table) if table else []
    references, others = ([m for m in models if (m.role == "reference") == wanted] for wanted in (True, False))
    levels = {name: level for name in names if (level := chance(name)) is not None}
    entries = {}
    for label, scores, look in (
        (" and ".join(m.name for m in references), [m.scores for m in references], {"color": INK, "marker": "D"}),
        ("published", [m.scores for m in others], {"color": GREY, "marker": "o", "markerfacecolor": "none"}),
        ("chance", [levels], {"color": FAINT, "marker": "|", "markersize": 19, "markeredgewidth": 1.6}),
    ):
        points = [(found[name], row) for row, name in enumerate(names) for found in scores if name in found]
        if points:
            style: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, **look}
            (entries[label],) = axes.plot(*zip(*points, strict=True), **style)
    return entries
