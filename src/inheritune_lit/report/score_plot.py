"""Scores as a picture: our models with their errors, the published ones, and chance, task by task."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import published
from inheritune_lit.figure import FAINT, GREY, INK
from inheritune_lit.report.plots import MARKERS, colours, shortened
from inheritune_lit.report.scores import known_tasks, measured, shown
from inheritune_lit.report.subjects import Subject
from inheritune_lit.report.svg import GRID, Plot, blank, drawing, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.42  # inches a task
PUBLISHED, REFERENCE, CHANCE = OTHERS = ("published", "reference", "chance")


def draw_scores(suite: str, subjects: Sequence[Subject], table: published.Scores | None, stem: Path) -> Plot:
    """Draws a suite's scores of those who have them, as `stem`.png and `stem`.svg."""
    stem.parent.mkdir(exist_ok=True)
    description = f"Scores on {suite}: " + ", ".join(s.name for s in subjects)
    with drawing():
        wide, narrow = (_figure(suite, subjects, table, *size) for size in ((9.8, 1.35, 4), (3.9, 0.95, 2)))
        return plot(stem.name, f"Scores on {suite}", description, stem, wide, narrow)


def _figure(
    suite: str, subjects: Sequence[Subject], table: published.Scores | None, width: float, left: float, columns: int
) -> "Figure":
    names = list(dict.fromkeys(name for s in subjects for name in s.evaluations[suite]["tasks"]))
    entries = len(subjects) + (3 if table else 1)
    top = 0.3 + 0.24 * -(-entries // columns)
    height = top + ROW * len(names) + 0.6
    figure = blank(width, height)
    axes = figure.add_axes((left / width, 0.55 / height, 1 - (left + 0.1) / width, 1 - (top + 0.55) / height))
    known = known_tasks()
    axes.set_ylim(len(names) - 0.5, -0.5)
    titles = [known[name].title if name in known else shortened([name], int(left * 12))[0] for name in names]
    axes.set_yticks(range(len(names)), titles, ha="left")
    _chance(axes, names)
    if table:
        _published(axes, names, table)
    shade = colours(subjects)
    short = shortened([s.name for s in subjects], int((width / columns - 0.4) / 0.088))
    for number, subject in enumerate(subjects):
        place = (number - (len(subjects) - 1) / 2) * min(0.2, 0.6 / len(subjects))
        _scores(
            axes, subject, suite, names, place, (shade[subject.name], MARKERS[number % len(MARKERS)], short[number])
        )
    axes.set_xlabel("score, per cent, ± 2 standard errors")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.tick_params(axis="y", pad=left * 72)
    _legend(figure, axes, columns)
    return figure


def _legend(figure: "Figure", axes: "Axes", columns: int) -> None:
    """Our models first; what can't be seen by colour alone has a marker of its own."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i] in OTHERS)
    rows = -(-len(order) // columns)
    order = [order[i] for column in range(columns) for i in range(column, len(order), columns)] if rows > 1 else order
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order],
        loc="upper left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderpad=0, handletextpad=0.3,
        columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip


def _chance(axes: "Axes", names: Sequence[str]) -> None:
    """A bar where guessing, or always giving the commonest answer, gets."""
    known = known_tasks()
    levels = [(row, known[name]) for row, name in enumerate(names) if name in known and known[name].chance is not None]
    places = [max(task.chance or 0, task.constant or 0) for _, task in levels]
    bar: dict[str, Any] = {"marker": "|", "markersize": 19, "markeredgewidth": 1.6, "linestyle": "none"}
    axes.plot(places, [row for row, _ in levels], color=FAINT, label=CHANCE, **bar)


def _published(axes: "Axes", names: Sequence[str], table: published.Scores) -> None:
    for roles, colour, look, label in (
        (
            ("baseline", "paper"),
            GREY,
            {"marker": "o", "markersize": 4, "markerfacecolor": "none"},
            PUBLISHED,
        ),
        (("reference",), INK, {"marker": "D", "markersize": 5}, REFERENCE),
    ):
        points = [
            (model.scores[name], row)
            for model in shown(table)
            if model.role in roles
            for row, name in enumerate(names)
            if name in model.scores
        ]
        style: dict[str, Any] = {"linestyle": "none", "color": colour, "label": label, "alpha": 0.75, **look}
        axes.plot(*zip(*points, strict=True), **style)


def _scores(
    axes: "Axes", subject: Subject, suite: str, names: Sequence[str], place: float, look: tuple[str, str, str]
) -> None:
    scores = measured(subject.evaluations[suite])
    rows = [(row + place, scores[name]) for row, name in enumerate(names) if name in scores]
    colour, marker, label = look
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5.5, "elinewidth": 1.4, "zorder": 3}
    axes.errorbar(
        [score.value for _, score in rows],
        [row for row, _ in rows],
        xerr=[2 * (score.stderr or 0) for _, score in rows],
        linestyle="none",
        label=f" {label}" if label.startswith("_") else label,  # matplotlib hides what begins with an underscore
        **style,
    )
