"""A table as the templates take it, and how numbers are written in one."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A number or a word."""

    text: str
    detail: str = ""
    """Smaller, after it: a standard error, a unit"""
    bold: bool = False
    marks: str = ""
    """Signs that a note below the table explains"""


NOTHING = Cell("–")


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]
    detail: str = ""
    """Smaller, after the label"""
    is_ours: bool = True
    """False for what others published"""


@dataclass(frozen=True)
class Table:
    heads: tuple[Cell, ...]
    """The first stands over the labels"""
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    is_text: bool = False
    """Whether its cells are words, set to the left"""

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.heads) - 1 for row in self.rows)


def heads(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def short_count(number: float | None) -> str:
    """1816143360 → 1.82 B, 81400000 → 81.4 M, 81920 → 81,920."""
    if number is None:
        return "–"
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def loss_cell(mean: float | None, stderr: float | None = None, decimals: int = 3) -> Cell:
    """A loss in nats, with its standard error if that is known."""
    if mean is None:
        return NOTHING
    return Cell(f"{mean:.{decimals}f}", f"± {stderr:.{decimals}f}" if stderr is not None else "")


def signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")


def setting(value: Any) -> str:
    """A recipe's value in one line, as YAML takes it."""
    return value if isinstance(value, str) else json.dumps(value)
