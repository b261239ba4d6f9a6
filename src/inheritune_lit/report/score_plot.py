"""Scores as a picture: our models with their errors, the published ones, and chance, task by task."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import published
from inheritune_lit.base.figure import FAINT, GREY, INK, spread
from inheritune_lit.report.plots import MARKERS, End, beside, colours, shortened
from inheritune_lit.report.scores import chance, known_tasks, measured, shown
from inheritune_lit.report.subjects import Subject
from inheritune_lit.report.svg import GRID, Plot, blank, drawing, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.42  # inches a task
DOTS = (0, (1, 2))


def draw_scores(suite: str, subjects: Sequence[Subject], table: published.Scores | None, stem: Path) -> Plot:
    """Draws a suite's scores of those who have them, as `stem`.png and `stem`.svg."""
    stem.parent.mkdir(exist_ok=True)
    description = f"Scores on {suite}: " + ", ".join(s.name for s in subjects)
    with drawing():
        wide, narrow = (_figure(suite, subjects, table, *size) for size in ((9.8, 1.35, 1.9), (3.9, 0.95, 1.15)))
        return plot(stem.name, f"Scores on {suite}", description, stem, wide, narrow)


def _figure(
    suite: str, subjects: Sequence[Subject], table: published.Scores | None, width: float, left: float, right: float
) -> "Figure":
    """A row a task, with `left` inches for the tasks' names and `right` for the models'."""
    names = list(dict.fromkeys(name for s in subjects for name in s.evaluations[suite]["tasks"]))
    top, bottom = 0.34, 0.55
    height = top + max(ROW * len(names), 0.21 * len(subjects) - top) + bottom
    figure = blank(width, height)
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))
    known = known_tasks()
    axes.set_ylim(len(names) - 0.5, -0.5)
    titles = [known[name].title if name in known else shortened([name], int(left * 12))[0] for name in names]
    axes.set_yticks(range(len(names)), titles, ha="left")
    others = [*_chance(axes, names), *(_published(axes, names, table) if table else ())]
    shade = colours(subjects)
    ends = []
    for number, subject in enumerate(subjects):
        place = (number - (len(subjects) - 1) / 2) * min(0.2, 0.6 / len(subjects))
        look = (shade[subject.name], MARKERS[number % len(MARKERS)])
        ends += _scores(axes, subject, suite, names, place, look)
    axes.set_xlim(axes.get_xlim())  # matplotlib leaves the scale open, and names are placed by it
    axes.set_xlabel("score, per cent, ± 2 standard errors")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.tick_params(axis="y", pad=left * 72)
    beside(axes, ends, int(right * 8.5), DOTS)
    _above(axes, others)
    return figure


def _above(axes: "Axes", others: Sequence[End]) -> None:
    """Names above what is no model of ours, moved apart."""
    pixels = axes.get_figure().dpi / 72  # type: ignore[union-attr]  # it stands in one
    letter = 5.4  # points, rather wide
    places = [float(axes.transData.transform((end.x, end.y))[0]) / pixels for end in others]
    spaced = spread(places, letter * max((len(end.name) for end in others), default=0))
    rights = [moved + letter / 2 * len(end.name) for end, moved in zip(others, spaced, strict=True)]
    over = max(0.0, max(rights, default=0) - axes.get_window_extent().x1 / pixels)  # there stand our models' names
    for end, place, moved in zip(others, places, spaced, strict=True):
        leader: dict[str, Any] = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            end.name, (end.x, end.y), (moved - over - place, 19), textcoords="offset points", ha="center", va="bottom",
            color=end.colour, fontsize=8.5, annotation_clip=False, arrowprops=leader,
        )  # fmt: skip


def _chance(axes: "Axes", names: Sequence[str]) -> list[End]:
    """A bar where guessing, or always giving the commonest answer, gets; returns where its name has to stand."""
    levels = [(level, row) for row, name in enumerate(names) if (level := chance(name)) is not None]
    bar: dict[str, Any] = {"marker": "|", "markersize": 19, "markeredgewidth": 1.6, "linestyle": "none"}
    for place in levels:
        axes.plot(*place, color=FAINT, **bar)
    return [End(*place, "chance", GREY) for place in levels[:1]]


def _published(axes: "Axes", names: Sequence[str], table: published.Scores) -> list[End]:
    """Points of the published models; returns where the names of the two kinds have to stand."""
    references = [model.name for model in shown(table) if model.role == "reference"]
    ends = []
    looks: tuple[tuple[tuple[str, ...], str, dict[str, Any], str], ...] = (
        (("baseline", "paper"), GREY, {"marker": "o", "markersize": 4, "markerfacecolor": "none"}, "published"),
        (("reference",), INK, {"marker": "D", "markersize": 5}, " and ".join(references)),
    )
    for roles, colour, look, label in looks:
        points = [
            (model.scores[name], row)
            for row, name in enumerate(names)
            for model in shown(table)
            if model.role in roles and name in model.scores
        ]
        axes.plot(*zip(*points, strict=True), linestyle="none", color=colour, alpha=0.75, **look)
        ends += [End(*point, label, colour) for point in points[:1]]
    return ends


def _scores(
    axes: "Axes", subject: Subject, suite: str, names: Sequence[str], place: float, look: tuple[str, str]
) -> list[End]:
    """Draws one model's points and errors; returns where its name has to stand."""
    scores = measured(subject.evaluations[suite])
    rows = [(row + place, scores[name]) for row, name in enumerate(names) if name in scores]
    colour, marker = look
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5.5, "elinewidth": 1.4, "zorder": 3}
    errors = [2 * (score.stderr or 0) for _, score in rows]
    axes.errorbar([score.value for _, score in rows], [row for row, _ in rows], xerr=errors, linestyle="none", **style)
    return [
        End(score.value + error, row, subject.name, colour) for (row, score), error in zip(rows, errors, strict=True)
    ][:1]
