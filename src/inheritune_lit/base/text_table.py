"""Tables for a terminal."""

from collections.abc import Sequence

Line = Sequence[str]


def aligned(lines: Sequence[Line], *, left: int = 1) -> list[str]:
    """Cells below each other: the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(_padded(line, widths, left)).rstrip() for line in lines]


def columns(heads: Line, rows: Sequence[Line], *, left: int = 1) -> list[str]:
    """`aligned`, with a rule below the heads."""
    rule = ["─" * max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return aligned([heads, rule, *rows], left=left)


def _padded(line: Line, widths: Sequence[int], left: int) -> list[str]:
    pairs = enumerate(zip(line, widths, strict=True))
    return [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in pairs]
