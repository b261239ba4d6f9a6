"""What `inheritune analyze` found, model by model: whether layers are lazy, and whether training woke them."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from inheritune_lit.report.subjects import Subject
from inheritune_lit.report.tables import Cell, Row, Table, heads


def layers_table(subjects: Sequence[Subject]) -> Table | None:
    """Attention rank and column mass, of all blocks and of the later half."""
    found = [(s, s.analysis) for s in subjects if s.analysis]
    if not found:
        return None
    rows = tuple(Row(subject.name, _cells(analysis)) for subject, analysis in found)
    notes = (
        "Ranks (k*) and columns (m*) that hold 90 % of a block's attention, the most of any head, as means over "
        "blocks: few of them in late blocks is what the paper calls lazy layers.",
    )
    titles = heads("model", "blocks", "ranks k*", "in the later half", "columns m*", "in the later half")
    return Table(titles, rows, notes)


def _cells(analysis: Mapping[str, Any]) -> tuple[Cell, ...]:
    blocks: Sequence[Mapping[str, Any]] = analysis["blocks"]
    later = blocks[len(blocks) // 2 :]
    means = [Cell(f"{fmean(b[key] for b in part):.1f}") for key in ("rank", "mass") for part in (blocks, later)]
    return Cell(str(len(blocks))), *means
