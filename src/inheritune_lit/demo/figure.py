"""The demo's figure: validation loss against tokens, for both starts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# from Okabe and Ito's palette, which the colour-blind can tell apart
COLOURS = {"inherited": "#0072B2", "random": "#D55E00"}
INK, FAINT = "#333333", "#999999"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the curves of `results` (see results.py) to a PNG file."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[str, Any] = {
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": FAINT,
    }
    with mpl.rc_context(style):  # type: ignore[arg-type]  # matplotlib lists every key in its type
        figure = Figure(figsize=(9, 5.4), dpi=160, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.115, 0.70, 0.73))
        _axes(axes, results)
        for name, label in (("inherited", "inherited start"), ("random", "random start")):
            _curve(axes, results["curves"][name], COLOURS[name], label)
        _reference(axes, results["models"]["reference"])
        _shortcut(axes, results)
        settings = results["settings"]
        blocks, whole = len(settings["blocks"]), results["models"]["reference"]["blocks"]
        figure.text(
            0.015, 0.945, f"{blocks} of SmolLM2's {whole} blocks, trained on Shakespeare", fontsize=15, weight="bold"
        )
        explanation = (
            "nats per token, logarithmic; lines with dots: validation on Hamlet, held out; faint: training loss"
        )
        figure.text(0.015, 0.895, explanation, color="#666666")
        figure.savefig(path)


def _axes(axes: "Axes", results: dict[str, Any]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_yscale("log")  # an untrained cut model's loss is five times the reference's
    losses = [loss for curve in results["curves"].values() for kind in curve.values() for _, loss in kind]
    losses.append(results["models"]["reference"]["validation_loss"])
    axes.set_ylim(min(losses) * 0.93, max(losses) * 1.05)
    axes.yaxis.set_major_locator(FixedLocator([1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    last = results["curves"]["random"]["validation"][-1][0]
    axes.set_xlim(0, last)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}"))
    axes.set_xlabel("thousand tokens trained on")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def _curve(axes: "Axes", curve: dict[str, list[tuple[int, float]]], colour: str, label: str) -> None:
    axes.plot(*zip(*curve["training"], strict=True), color=colour, alpha=0.28, linewidth=1.1)
    tokens, losses = zip(*curve["validation"], strict=True)
    axes.plot(tokens, losses, color=colour, linewidth=2.2, marker="o", markersize=5, clip_on=False, zorder=3)
    _label(axes, tokens[-1], losses[-1], f"{label}  {losses[-1]:.2f}", colour)


def _reference(axes: "Axes", reference: dict[str, Any]) -> None:
    loss = reference["validation_loss"]
    axes.axhline(loss, color=INK, linewidth=1.3, linestyle=(0, (5, 4)))
    _label(axes, axes.get_xlim()[1], loss, f"whole reference  {loss:.2f}", INK, "not trained here")


def _label(axes: "Axes", x: float, y: float, text: str, colour: str, more: str = "") -> None:
    """A line's name beside its end; no legend to look up."""
    place: dict[str, Any] = {
        "xycoords": "data",
        "textcoords": "offset points",
        "va": "center",
        "annotation_clip": False,
    }
    axes.annotate(text, (x, y), (11, 0), color=colour, weight="bold", **place)
    if more:
        axes.annotate(more, (x, y), (11, -15), color="#666666", **place)


def _shortcut(axes: "Axes", results: dict[str, Any]) -> None:
    """Where the inherited start is as good as the random start in the end, if it gets there."""
    reached = results["tokens_to_reach_random"]
    last, goal = results["curves"]["random"]["validation"][-1]
    if not reached:
        return
    arrow = {"arrowstyle": "<->", "color": INK, "linewidth": 1.1, "shrinkA": 4, "shrinkB": 6}
    axes.annotate("", (reached, goal), (last, goal), arrowprops=arrow, zorder=4)
    text = f"the same loss with {last / reached:.1f} times fewer tokens"
    axes.annotate(
        text, ((reached + last) / 2, goal), (0, 38), textcoords="offset points", ha="center", va="center", fontsize=10
    )
