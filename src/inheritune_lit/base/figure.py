"""What all figures share: colours, a plain frame, loss curves with a legend; each as PNG and as SVG."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which the colour-blind can tell apart
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, FAINT = "#333333", "#666666", "#999999"
STYLE: Any = {
    **{"font.size": 10, "axes.titlesize": 10.5, "axes.titlelocation": "left", "figure.titleweight": "bold"},
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **{"axes.edgecolor": FAINT, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"axes.grid": True, "axes.grid.axis": "y", "grid.color": "#ECECEC", "legend.frameon": False},
    **{"xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 5, "ytick.major.pad": 5},
    **{"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "inheritune", "savefig.dpi": 150},
}
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}  # the same figure gives the same file
MARKERS = "osD^vP"
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One run's losses, as (place on the x axis, nats per token)."""

    name: str
    colour: str
    validation: Sequence[Point]
    training: Sequence[Point] = ()
    """Drawn faint"""


@contextmanager
def drawing(stem: Path, size: tuple[float, float], title: str = "", **subplots: Any) -> Iterator[Sequence[Any]]:
    """Axes in a row to draw on; in the end they are written as `stem`.png and `stem`.svg. No screen is needed.

    Args:
        stem: The files' path without its ending.
        size: Width and height in inches.
        title: Above all axes.
        subplots: As matplotlib's Figure.subplots takes them.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        yield figure.subplots(squeeze=False, **subplots)[0]
        figure.suptitle(title)
        for ending, metadata in METADATA.items():
            figure.savefig(f"{stem}.{ending}", metadata=metadata)


def draw_losses(axes: "Axes", lines: Sequence[Line], x: str, levels: Mapping[str, float] | None = None) -> None:
    """Loss curves and their legend, which has each one's last loss.

    The axis ends at what is drawn after a tenth of the way: the fall before that would flatten all the rest.

    Args:
        axes: Of `drawing`.
        lines: At least one with a point.
        x: What the losses are drawn against.
        levels: Losses that are drawn as dashed lines, by name.
    """
    entries = {}
    for marker, line in zip(MARKERS * len(lines), lines, strict=False):
        look: dict[str, Any] = {"color": line.colour, "marker": marker, "markersize": 4.5, "zorder": 3}
        if line.training:
            axes.plot(*zip(*line.training, strict=True), color=line.colour, alpha=0.3, linewidth=1.1)
        every = max(1, len(line.validation) // 12)
        (drawn,) = axes.plot([x for x, _ in line.validation], [y for _, y in line.validation], markevery=every, **look)
        if last := (line.validation or line.training)[-1:]:
            entries[f"{line.name}  {last[0][1]:.3f}"] = drawn
    for name, level in (levels or {}).items():
        entries[f"{name}  {level:.3f}"] = axes.axhline(level, color=INK, linewidth=1.2, linestyle="--")
    curves = [curve for line in lines for curve in (line.validation, line.training) if curve]
    shown = [loss for curve in curves for place, loss in curve if 10 * place >= curve[-1][0]]
    shown += (levels or {}).values()
    margin = 0.05 * (max(shown) - min(shown)) or 0.1
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set(xlim=(0, None), xlabel=x, ylabel="loss, nats per token")
    axes.xaxis.set_major_formatter("{x:,.10g}")
    legend(axes, entries)


def colours(runs: Mapping[str, bool]) -> dict[str, str]:
    """A colour for each of {name: whether it started at random}: vermilion for a random start, blue for another."""
    palettes = {True: (VERMILION, ORANGE, PURPLE), False: (BLUE, GREEN, SKY, PURPLE, ORANGE)}
    left = {is_random: cycle(palette) for is_random, palette in palettes.items()}
    return {name: next(left[is_random]) for name, is_random in runs.items()}


def legend(axes: "Axes", entries: Mapping[str, Any]) -> None:
    """A legend below the axes, one {name: what was drawn} a line; long names are folded."""
    names = [textwrap.fill(name, 75, break_on_hyphens=False) for name in entries]
    axes.get_figure().legend(list(entries.values()), names, loc="outside lower left")  # type: ignore[union-attr]
