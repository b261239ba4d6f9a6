"""The loss curves, against tokens, steps and device-hours, as PNG, as SVG and as part of the page."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from inheritune_lit.base.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, spread
from inheritune_lit.report.subjects import Subject, is_one_training_loss
from inheritune_lit.report.svg import GRID, Plot, blank, drawing, plot
from inheritune_lit.report.tables import short_count
from inheritune_lit.runs.curves import thinned
from inheritune_lit.runs.folder import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves: TypeAlias = Mapping[str, Mapping[str, Curve]]
"""{a run's name: {"training" or "validation": its curve}}"""
POINTS = 400  # of a training curve, which has one a step
MARKERS = "osD^vP"
TICKS = (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)  # of a logarithmic loss


@dataclass(frozen=True)
class Axis:
    """What a curve is drawn against."""

    name: str
    label: str
    of: Callable[[Subject, int, int], float]
    """(run, step, tokens) → the place on the axis"""


@dataclass(frozen=True)
class End:
    """A point that has a name beside it."""

    x: float
    y: float
    name: str
    colour: str
    detail: str = ""
    """Smaller, below the name"""


def axes_for(subjects: Sequence[Subject]) -> list[Axis]:
    """Tokens and steps, and device-hours if all runs know theirs in the same unit."""
    found = [
        Axis("tokens", "tokens trained on", lambda subject, step, tokens: tokens),
        Axis("steps", "optimizer steps", lambda subject, step, tokens: step),
    ]
    hours = [subject.device_hours for subject in subjects]
    units = {h[0] for h in hours if h}
    if all(hours) and len(units) == 1:
        found.append(Axis("hours", units.pop(), _hours))
    return found


def _hours(subject: Subject, step: int, tokens: int) -> float:
    """Time is taken to be proportional to tokens: the logs of resumed runs start their clocks anew."""
    hours = subject.device_hours
    assert hours
    return hours[1] * tokens / subject.receipt["tokens"]


def colours(subjects: Sequence[Subject]) -> dict[str, str]:
    """A colour a run: vermilion for the random start, as in all our figures, blue for the first other one."""
    random, others = [VERMILION, ORANGE, PURPLE], [BLUE, GREEN, SKY, PURPLE, ORANGE]
    chosen, counts = {}, {True: 0, False: 0}
    for subject in subjects:
        palette = random if subject.is_random else others
        chosen[subject.name] = palette[counts[subject.is_random] % len(palette)]
        counts[subject.is_random] += 1
    return chosen


def draw_curves(subjects: Sequence[Subject], folder: Path) -> list[Plot]:
    """Draws the runs' curves, one plot an axis, into `folder`; none if no run has a curve.

    Training curves are left out where they are of different things, as `is_one_training_loss` says.
    """
    kinds = ("training", "validation") if is_one_training_loss(subjects) else ("validation",)
    curves = {s.name: {kind: _finite(s, kind) for kind in kinds} for s in subjects}
    runs = [s for s in subjects if any(curves[s.name].values())]
    if not runs:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    with drawing():
        for axis in axes_for(runs):
            wide = _figure(runs, curves, axis, (9.8, 4.8), 2.4)
            narrow = _figure(runs, curves, axis, (3.9, 3.9), 1.2, ticks=3)
            description = f"Loss against {axis.label}: " + ", ".join(s.name for s in runs)
            plots.append(plot(axis.name, axis.label, description, folder / f"loss_{axis.name}", wide, narrow))
    return plots


def _finite(subject: Subject, kind: str) -> Curve:
    """A run's curve but for what is NaN or infinite, which has no place in a plot."""
    curve = subject.run.curves[kind] if subject.run else []
    return [point for point in curve if math.isfinite(point[2])]


def _figure(
    runs: Sequence[Subject], curves: Curves, axis: Axis, size: tuple[float, float], right: float, ticks: int = 6
) -> "Figure":
    """One plot, with `right` inches for the runs' names."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    width, height = size
    figure = blank(width, height)
    axes = figure.add_axes((0.42 / width, 0.58 / height, 1 - (0.42 + right) / width, 1 - 1.0 / height))
    shade = colours(runs)
    _scale(axes, [curve for subject in runs for curve in curves[subject.name].values() if curve])
    ends = []
    for number, subject in enumerate(runs):
        ends += _curves(axes, subject, curves[subject.name], axis, shade[subject.name], MARKERS[number % len(MARKERS)])
    axes.set_xlim(left=0)
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=axis.name == "steps"))
    if axis.name != "hours":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlabel(axis.label)
    figure.text(0, 1 - 0.22 / height, "loss, nats per token", color=GREY)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    beside(axes, ends, int(right * 8.5))
    return figure


def _curves(
    axes: "Axes", subject: Subject, curves: Mapping[str, Curve], axis: Axis, colour: str, marker: str
) -> list[End]:
    """Draws one run; returns where its name has to stand."""
    training, validation = (
        [(axis.of(subject, step, tokens), loss) for step, tokens, loss in curves.get(kind, ())]
        for kind in ("training", "validation")
    )
    if training:
        axes.plot(*zip(*thinned(training, POINTS), strict=True), color=colour, alpha=0.3, linewidth=1.1)
    if validation:
        every = max(1, len(validation) // 12)
        look: dict[str, Any] = {"linewidth": 2.0, "marker": marker, "markersize": 4.5, "markevery": every}
        look["clip_on"] = validation[0][1] > axes.get_ylim()[1]  # a point on the axis is drawn whole
        axes.plot(*zip(*validation, strict=True), color=colour, zorder=3, **look)
    return [End(x, y, subject.name, colour, f"{y:.3f}") for x, y in (validation or training)[-1:]]


def _scale(axes: "Axes", curves: Sequence[Curve]) -> None:
    """From the lowest loss to those of a fiftieth of the way: what came before would flatten all the rest.

    Logarithmic where an untrained model's loss is part of it.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low = min(loss for curve in curves for _, _, loss in curve)
    high = max(loss for curve in curves for step, _, loss in curve if step * 50 >= curve[-1][0] or len(curve) <= 50)
    if high / low > 2:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([*TICKS]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def beside(axes: "Axes", ends: Sequence[End], longest: int, line: Any = "-") -> None:
    """Names to the right of the axes, moved apart; a line in its colour leads from each to its point."""
    figure = axes.get_figure()
    assert figure
    to_pixels, pixels = axes.transData, figure.dpi / 72
    places = [float(to_pixels.transform((end.x, end.y))[1]) / pixels for end in ends]
    spaced = spread(places, 27 if any(end.detail for end in ends) else 15)
    up = max(0.0, 16 - min(spaced)) or min(0.0, figure.bbox.height / pixels - 8 - max(spaced))  # within the figure
    edge = axes.get_window_extent().x1 / pixels
    shown = shortened([end.name for end in ends], longest)
    for end, name, place, moved in zip(ends, shown, places, spaced, strict=True):
        start = float(to_pixels.transform((end.x, end.y))[0]) / pixels
        right, above = edge - start, moved + up - place
        leader: dict[str, Any] = {"arrowstyle": "-", "color": end.colour, "linewidth": 1.2, "linestyle": line}
        leader |= {"shrinkA": 0, "shrinkB": 3}
        axes.annotate("", (end.x, end.y), (right + 20, above), textcoords="offset points", arrowprops=leader)
        text: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False, "parse_math": False}
        middle = "bottom" if end.detail else "center_baseline"
        axes.annotate(name, (end.x, end.y), (right + 24, above + 1), va=middle, weight="bold", **text)
        axes.annotate(end.detail, (end.x, end.y), (right + 24, above - 1), va="top", color=GREY, **text)


def shortened(names: Sequence[str], longest: int) -> list[str]:
    """Names cut to a length by what is the least use: the beginning that they share, then the middle."""
    if max(map(len, names)) <= longest:
        return list(names)
    shared = re.match(r".*[_/.-]|", commonprefix(list(names)))  # noqa: RUF071  # letters are meant
    assert shared
    cut = (
        [f"…{name[shared.end() :]}" if shared.end() > 1 else name for name in names] if len(names) > 1 else list(names)
    )
    half = (longest - 1) // 2
    return [name if len(name) <= longest else f"{name[:half]}…{name[-half:]}" for name in cut]
