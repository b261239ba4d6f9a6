"""The analysis as a picture: what the first n blocks lose, the map of first and last ones, what each block does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.figure import BLUE, GREEN, STYLE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(analysis: dict[str, Any], out_dir: Path) -> None:
    """Writes analysis.png and analysis.svg."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE | {"font.size": 10, "svg.hashsalt": "inheritune"}):  # type: ignore[arg-type]  # matplotlib lists every key in its type
        figure = Figure(figsize=(13, 4.6), dpi=150, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.06})
        _depths(panels[0], analysis)
        if len(analysis["best"]) > 1:
            _map(figure, panels[1], analysis)
        else:
            _blocks(panels[1], analysis, "What a block does to the residual stream", "share", _CHANGE)
        columns = f"of {analysis['max_seq_length']}, for 90 %"
        _blocks(panels[2], analysis, "Attention: lazy where ranks or columns are few", columns, _ATTENTION)
        for axes in panels:
            axes.tick_params(length=0, pad=5)
        figure.suptitle(
            f"What {analysis['model']['name']} loses without some of its {analysis['model']['n_layer']} blocks",
            weight="bold",
            fontsize=13,
        )
        for ending in ("png", "svg"):
            figure.savefig(out_dir / f"analysis.{ending}")


_CHANGE = (
    ("change", "norm of what it adds / of its input", VERMILION),
    ("cosine", "cosine of input and output", GREEN),
)
_ATTENTION = (("mass", "columns m*", BLUE), ("rank", "rank k*", VERMILION))


def _names(axes: "Axes", names: Sequence[tuple[str, str]], highest: float) -> None:
    """(name, colour) of each line, in a corner that is kept free above the highest value."""
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top", "weight": "bold"}
    for i, (name, colour) in enumerate(names):
        axes.text(0.98, 0.97 - 0.07 * i, name, color=colour, **place)
    axes.set_ylim(0, highest / (0.93 - 0.07 * len(names)))


def _plain(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)


def _depths(axes: "Axes", analysis: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    _plain(axes, "Loss of the first n blocks, untrained", "n, blocks kept, and parameters", "validation loss, nats")
    depths = analysis["depths"]
    size = {row["n"]: f"\n{row['parameters'] / 1e6:,.0f} M" for row in depths}
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:.0f}{size.get(round(n), '')}"))
    first = [(row["n"], row["loss"]) for row in depths]
    axes.plot(*zip(*first, strict=True), color=BLUE, linewidth=2, marker="o", markersize=3.5)
    names = [("first n", BLUE)]
    best = [(row["n"], row["loss"]) for row in analysis["best"]]
    if best:
        axes.plot(*zip(*best, strict=True), color=VERMILION, linewidth=2, marker="D", markersize=4)
        names.append(("best first and last", VERMILION))
    _names(axes, names, max(loss for _, loss in [*first, *best]))


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
    figure.colorbar(image, ax=axes, shrink=0.8, label="validation loss, nats per token")


def _blocks(
    axes: "Axes", analysis: dict[str, Any], title: str, unit: str, curves: Sequence[tuple[str, str, str]]
) -> None:
    """One curve a measure over the blocks."""
    _plain(axes, title, "block", unit)
    blocks = analysis["blocks"]
    for key, _, colour in curves:
        values = [row[key] for row in blocks]
        axes.plot([row["block"] for row in blocks], values, color=colour, linewidth=2, marker="o", markersize=3)
    # the first block adds many times its small input: it may leave the picture, the others must not
    highest = max(row[key] for row in blocks[min(1, len(blocks) - 1) :] for key, _, _ in curves)
    _names(axes, [(name, colour) for _, name, colour in curves], highest)
