"""The analysis as a picture: what the first n blocks lose, and what each block does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.figure import BLUE, GREEN, STYLE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANGE = {"change": ("norm of what it adds / of its input", VERMILION), "cosine": ("cosine of input and output", GREEN)}
ATTENTION = {"mass": ("columns m*", BLUE), "rank": ("rank k*", VERMILION)}


def draw(analysis: dict[str, Any], out_dir: Path) -> None:
    """Writes analysis.png and analysis.svg."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = STYLE | {"font.size": 10, "svg.hashsalt": "inheritune", "legend.frameon": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(13, 4.6), dpi=150, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        left, middle, right = figure.subplots(1, 3, gridspec_kw={"wspace": 0.06})
        _depths(left, analysis)
        _blocks(middle, analysis, "What a block does to the residual stream", "share", CHANGE)
        columns = f"of {analysis['max_seq_length']}, for 90 %"
        _blocks(right, analysis, "Lazy attention: few ranks or columns", columns, ATTENTION)
        model = analysis["model"]
        title = f"What {model['name']} loses without some of its {model['n_layer']} blocks"
        figure.suptitle(title, weight="bold", fontsize=13)
        for ending in ("png", "svg"):
            figure.savefig(out_dir / f"analysis.{ending}")


def _frame(axes: "Axes", title: str, x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _depths(axes: "Axes", analysis: dict[str, Any]) -> None:
    _frame(axes, "Loss of the first n blocks, untrained", "n, blocks kept", "validation loss, nats per token")
    ns, losses = ([row[key] for row in analysis["depths"]] for key in ("n", "loss"))
    axes.plot(ns, losses, color=BLUE, linewidth=2, marker="o", markersize=4)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_ylim(bottom=0)


def _blocks(axes: "Axes", analysis: dict[str, Any], title: str, unit: str, curves: dict[str, tuple[str, str]]) -> None:
    """One curve a measure over the blocks."""
    _frame(axes, title, "block", unit)
    blocks = analysis["blocks"]
    for key, (label, colour) in curves.items():
        axes.plot([row[key] for row in blocks], color=colour, linewidth=2, marker="o", markersize=3, label=label)
    # the first block adds many times its small input: it may leave the picture, the others must not
    highest = max(row[key] for row in blocks[min(1, len(blocks) - 1) :] for key in curves)
    axes.set_ylim(0, highest * 1.25)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.legend()
