"""The demo's figure: validation loss against tokens, for both starts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.figure import BLUE, INK, STYLE, VERMILION, canvas, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"inherited": BLUE, "random": VERMILION}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the curves of `results` (see results.py) to a PNG file."""
    import matplotlib as mpl

    settings = results["settings"]
    blocks, whole = len(settings["blocks"]), results["models"]["reference"]["blocks"]
    explanation = "nats per token, logarithmic; lines with dots: validation on Hamlet, held out; faint: training loss"
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # matplotlib lists every key in its type
        figure, axes = canvas(f"{blocks} of SmolLM2's {whole} blocks, trained on Shakespeare", explanation)
        _axes(axes, results)
        for name, text in (("inherited", "inherited start"), ("random", "random start")):
            _curve(axes, results["curves"][name], COLOURS[name], text)
        _reference(axes, results["models"]["reference"])
        _shortcut(axes, results)
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


def _curve(axes: "Axes", curve: dict[str, list[tuple[int, float]]], colour: str, text: str) -> None:
    axes.plot(*zip(*curve["training"], strict=True), color=colour, alpha=0.28, linewidth=1.1)
    tokens, losses = zip(*curve["validation"], strict=True)
    axes.plot(tokens, losses, color=colour, linewidth=2.2, marker="o", markersize=5, clip_on=False, zorder=3)
    label(axes, tokens[-1], losses[-1], f"{text}  {losses[-1]:.2f}", colour)


def _reference(axes: "Axes", reference: dict[str, Any]) -> None:
    loss = reference["validation_loss"]
    axes.axhline(loss, color=INK, linewidth=1.3, linestyle=(0, (5, 4)))
    label(axes, axes.get_xlim()[1], loss, f"whole reference  {loss:.2f}", INK, "not trained here")


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
