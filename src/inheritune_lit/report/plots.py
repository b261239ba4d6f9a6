"""The loss curves, against tokens, steps and device-hours."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inheritune_lit.base.figure import Line, Point, colours, draw_losses, drawing
from inheritune_lit.report.subjects import Subject, is_one_training_loss
from inheritune_lit.report.tables import short_count
from inheritune_lit.runs.curves import thinned
from inheritune_lit.runs.folder import Curve

POINTS = 400  # of a training curve, which has one a step


@dataclass(frozen=True)
class Axis:
    """What a curve is drawn against."""

    name: str
    label: str
    of: Callable[[Subject, int, int], float]
    """(run, step, tokens) → the place on the axis"""


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


def draw_curves(subjects: Sequence[Subject], folder: Path) -> dict[str, Path]:
    """Draws the runs' curves into `folder`, one figure an axis; none if no run has a curve.

    Training curves are left out where they are of different things, as `is_one_training_loss` says.

    Returns:
        {what they are drawn against: the figure's path, as `drawing` takes it}
    """
    kinds = ("validation", "training") if is_one_training_loss(subjects) else ("validation",)
    runs = [s for s in subjects if s.run and any(_finite(s.run.curves[kind]) for kind in kinds)]
    if not runs:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    figures, shade = {}, colours({s.name: s.is_random for s in runs})
    for axis in axes_for(runs):
        lines = [Line(s.name, shade[s.name], *(_points(s, kind, axis) for kind in kinds)) for s in runs]
        figures[axis.label] = folder / f"loss_{axis.name}"
        with drawing(figures[axis.label], (7.2, 3.9 + 0.2 * len(lines))) as (axes,):
            draw_losses(axes, lines, axis.label)
            if axis.name != "hours":
                axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
    return figures


def _points(subject: Subject, kind: str, axis: Axis) -> Sequence[Point]:
    assert subject.run
    curve = _finite(subject.run.curves[kind])
    points = [(axis.of(subject, step, tokens), loss) for step, tokens, loss in curve]
    return thinned(points, POINTS) if kind == "training" else points


def _finite(curve: Curve) -> Curve:
    """A curve but for what is NaN or infinite, which has no place in a plot."""
    return [point for point in curve if math.isfinite(point[2])]
