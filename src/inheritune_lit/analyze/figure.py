"""The analysis as a picture: what the first n blocks lose, the map of first and last ones, what each block does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.demo.figure import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# from Okabe and Ito's palette, which the colour-blind can tell apart
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def draw(analysis: dict[str, Any], out_dir: Path) -> None:
    """Writes analysis.png and analysis.svg."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[str, Any] = {"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT}
    style |= {"xtick.color": INK, "ytick.color": INK, "svg.hashsalt": "inheritune"}
    with mpl.rc_context(style):  # type: ignore[arg-type]  # matplotlib lists every key in its type
        figure = Figure(figsize=(13, 4.6), dpi=150, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.06})
        _depths(panels[0], analysis)
        if _is_map(analysis):
            _map(figure, panels[1], analysis)
        else:
            _change(panels[1], analysis)
        _attention(panels[2], analysis)
        for axes in panels:
            axes.tick_params(length=0, pad=5)
        figure.suptitle(
            f"What {analysis['model']['name']} loses without some of its blocks", weight="bold", fontsize=13
        )
        for ending in ("png", "svg"):
            figure.savefig(out_dir / f"analysis.{ending}")


def _is_map(analysis: dict[str, Any]) -> bool:
    return len({row["first"] + row["last"] for row in analysis["pairs"]}) > 1


def _plain(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)


def _depths(axes: "Axes", analysis: dict[str, Any]) -> None:
    _plain(axes, "Loss of the first n blocks, untrained", "n, blocks kept", "validation loss, nats per token")
    numbers, losses = zip(*((row["n"], row["loss"]) for row in analysis["depths"]), strict=True)
    axes.plot(numbers, losses, color=BLUE, linewidth=2, marker="o", markersize=3.5)
    axes.annotate("first n", (numbers[0], losses[0]), (6, 0), textcoords="offset points", color=BLUE, weight="bold")
    best: dict[int, float] = {}
    for row in analysis["pairs"]:
        n = row["first"] + row["last"]
        best[n] = min(best.get(n, row["loss"]), row["loss"])
    if best:
        numbers, losses = zip(*sorted(best.items()), strict=True)
        axes.plot(numbers, losses, color=ORANGE, linewidth=2, marker="D", markersize=4)
        place: dict[str, Any] = {"textcoords": "offset points", "color": ORANGE, "weight": "bold", "va": "top"}
        axes.annotate("best first and last", (numbers[0], losses[0]), (6, -6), **place)
    axes.set_ylim(bottom=0)


def _map(figure: "Figure", axes: "Axes", analysis: dict[str, Any]) -> None:
    import numpy as np

    size = analysis["model"]["n_layer"] + 1
    grid = np.full((size, size), np.nan)
    for row in analysis["pairs"]:
        grid[row["last"], row["first"]] = row["loss"]
    image = axes.imshow(grid, origin="lower", cmap="cividis_r")
    axes.set_title("First a and last b blocks, untrained", loc="left", fontsize=10.5)
    axes.set_xlabel("a, first blocks kept")
    axes.set_ylabel("b, last blocks kept")
    axes.spines[["top", "right"]].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="validation loss, nats per token").outline.set_visible(False)


def _change(axes: "Axes", analysis: dict[str, Any]) -> None:
    _plain(axes, "What a block does to the residual stream", "block", "share")
    numbers = [row["block"] for row in analysis["blocks"]]
    curves = (
        ("cosine", "cosine of input and output", GREEN),
        ("change", "norm of what it adds / of its input", ORANGE),
    )
    for i, (key, label, colour) in enumerate(curves):
        axes.plot(
            numbers, [row[key] for row in analysis["blocks"]], color=colour, linewidth=2, marker="o", markersize=3
        )
        axes.text(
            0.98, 0.97 - 0.07 * i, label, transform=axes.transAxes, color=colour, weight="bold", ha="right", va="top"
        )
    axes.set_ylim(0, max(1.25, *(min(2.5, row["change"] * 1.1) for row in analysis["blocks"])))


def _attention(axes: "Axes", analysis: dict[str, Any]) -> None:
    length = analysis["max_seq_length"]
    _plain(axes, "Attention: few columns or ranks are lazy", "block", f"of {length}, for 90 %")
    numbers = [row["block"] for row in analysis["blocks"]]
    for i, (key, label, colour) in enumerate((("mass", "columns m*", BLUE), ("rank", "rank k*", ORANGE))):
        values = [row[key] for row in analysis["blocks"]]
        axes.plot(numbers, values, color=colour, linewidth=2, marker="o", markersize=3)
        axes.text(
            0.98, 0.97 - 0.07 * i, label, transform=axes.transAxes, color=colour, weight="bold", ha="right", va="top"
        )
    axes.set_ylim(bottom=0)
