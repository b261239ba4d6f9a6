"""A figure as a file, and as part of a page that has a light and a dark theme."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.figure import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#ECECEC"
# What stands for a colour in the page: its style sheet says what each is in either theme
CSS_NAMES = {BLUE: "blue", VERMILION: "vermilion", GREEN: "green", PURPLE: "purple", ORANGE: "orange", SKY: "sky",
             INK: "ink", GREY: "muted", FAINT: "faint", GRID: "grid"}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """One figure, in the files `stem`.png and `stem`.svg."""

    name: str
    title: str
    stem: Path
    wide: str
    """SVG for the page"""
    narrow: str
    """SVG for the page on a phone"""


@contextmanager
def drawing() -> Iterator[None]:
    """The style of our figures, in the sizes of the page; text stays text, and the same figure gives the same file."""
    import matplotlib as mpl

    style: dict[str, Any] = STYLE | {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "inheritune"}
    with mpl.rc_context(style):  # type: ignore[arg-type]  # matplotlib lists every key in its type
        yield


def blank(width: float, height: float) -> "Figure":
    """An empty figure, in inches; no screen is needed. 9.8 inches are what the page is wide, 3.9 a phone's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plot(name: str, title: str, description: str, stem: Path, wide: "Figure", narrow: "Figure") -> Plot:
    """Writes the wide figure as `stem`.png and `stem`.svg, and makes both ready for the page."""
    wide.savefig(stem.with_suffix(".png"), metadata={"Software": None})
    svg = _svg(wide)
    stem.with_suffix(".svg").write_text(svg, encoding="utf-8")
    return Plot(name, title, stem, _inline(svg, name, description), _inline(_svg(narrow), f"{name}-n", description))


def _svg(figure: "Figure") -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return text.getvalue()


def _inline(svg: str, name: str, description: str) -> str:
    """A figure as part of the page: in the page's colours and type, with ids of its own, on its ground."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"\sxmlns(:\w+)?=\"[^\"]*\"", "", svg)  # an HTML parser knows them
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<g id=\"patch_1\">.*?</g>", "", svg, count=1, flags=re.DOTALL)  # the white ground
    svg = re.sub(r"<g id=\"patch_2\">.*?</g>", "", svg, count=1, flags=re.DOTALL)  # that of the axes
    svg = re.sub(r"(\bid=\"|url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ((?:[\w.]+ )*[\d.]+px) [^;\"]+", r"font: \1 var(--sans)", svg)
    for colour, css in CSS_NAMES.items():
        svg = re.sub(re.escape(colour), f"var(--fig-{css})", svg, flags=re.IGNORECASE)
    head, _, rest = svg.partition(">")
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box
    return f'<svg {view_box[0]} role="img" aria-label="{escape(description)}">{rest}'
