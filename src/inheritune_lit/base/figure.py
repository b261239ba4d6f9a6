"""What all figures share: colours, a plain frame, and names beside the lines instead of a legend to look up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, FAINT = "#333333", "#666666", "#999999"
STYLE: dict[str, Any] = {
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": FAINT,
}


def canvas(title: str, explanation: str) -> "tuple[Figure, Axes]":
    """A figure with a title, a line below it that says how to read it, and room for names to the right of the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.115, 0.70, 0.73))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    figure.text(0.015, 0.945, title, fontsize=15, weight="bold")
    figure.text(0.015, 0.895, explanation, color=GREY)
    return figure, axes


def label(axes: "Axes", x: float, y: float, text: str, colour: str, more: str = "") -> None:
    """A line's name beside its end."""
    place: dict[str, Any] = {
        "xycoords": "data",
        "textcoords": "offset points",
        "va": "center",
        "annotation_clip": False,
    }
    axes.annotate(text, (x, y), (11, 0), color=colour, weight="bold", **place)
    if more:
        axes.annotate(more, (x, y), (11, -15), color=GREY, **place)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Moves values apart, as little as it takes: in the same order, each at least `gap` above the one below it."""
    order = sorted(range(len(values)), key=values.__getitem__)
    clusters: list[tuple[float, int]] = []  # centre and size of a run of names that touch
    for i in order:
        clusters.append((values[i], 1))
        while len(clusters) > 1 and clusters[-1][0] - clusters[-2][0] < gap * (clusters[-1][1] + clusters[-2][1]) / 2:
            (high, more), (low, fewer) = clusters.pop(), clusters.pop()
            clusters.append(((high * more + low * fewer) / (more + fewer), more + fewer))
    places = [centre + gap * (i - (size - 1) / 2) for centre, size in clusters for i in range(size)]
    moved = [0.0] * len(values)
    for i, place in zip(order, places, strict=True):
        moved[i] = place
    return moved
