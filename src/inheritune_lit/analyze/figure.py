"""The analysis as a picture: what the first n blocks lose, and what each block does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.figure import BLUE, GREEN, VERMILION, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANGE = {"change": ("norm of what it adds / of its input", VERMILION), "cosine": ("cosine of input and output", GREEN)}
ATTENTION = {"mass": ("columns m*", BLUE), "rank": ("rank k*", VERMILION)}


def draw(analysis: dict[str, Any], out_dir: Path) -> None:
    """Writes analysis.png and analysis.svg."""
    model = analysis["model"]
    title = f"What {model['name']} loses without some of its {model['n_layer']} blocks"
    with drawing(out_dir / "analysis", (13, 4.6), title, ncols=3) as (left, middle, right):
        _depths(left, analysis)
        _blocks(middle, analysis, "What a block does to the residual stream", "share", CHANGE)
        columns = f"of {analysis['max_seq_length']}, for 90 %"
        _blocks(right, analysis, "Lazy attention: few ranks or columns", columns, ATTENTION)


def _frame(axes: "Axes", title: str, x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(title=title, xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _depths(axes: "Axes", analysis: dict[str, Any]) -> None:
    _frame(axes, "Loss of the first n blocks, untrained", "n, blocks kept", "validation loss, nats per token")
    ns, losses = ([row[key] for row in analysis["depths"]] for key in ("n", "loss"))
    axes.plot(ns, losses, color=BLUE, linewidth=2, marker="o", markersize=4)
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
    axes.legend()
