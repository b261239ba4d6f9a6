"""What one sees while it grows: a table of the stages that follows the training on a terminal, lines elsewhere."""

import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.text_table import columns
from inheritune_lit.pretrain.bar import duration
from inheritune_lit.pretrain.watch import LOADING

if TYPE_CHECKING:
    from inheritune_lit.grow.stages import Stage
    from inheritune_lit.pretrain import Progress

HEADS = ("stage", "start", "n", "parameters", "step", "loss", "val. loss", "time left")


@dataclass
class Row:
    stage: "Stage"
    parameters: int
    steps: int
    step: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    left: str = ""
    doing: str = LOADING
    """Until the first step that is logged; then nothing"""

    def cells(self) -> tuple[str, ...]:
        return (
            self.stage.name,
            self.stage.title,
            str(self.stage.blocks),
            f"{self.parameters / 1e6:,.1f} M",
            f"{self.step:,}/{self.steps:,}",
            "–" if self.loss is None else f"{self.loss:.3f}",
            "–" if self.validation_loss is None else f"{self.validation_loss:.3f}",
            ", ".join(filter(None, (self.doing, self.left))),
        )


class View:
    """Rows appear when their stage begins. On a terminal the table is drawn over itself, below what others print."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._out = sys.stdout
        self._drawn = 0
        """Lines of the table that are the last ones on the terminal"""
        self._shown: tuple[str, int, str] | None = None
        """Stage, tenth of its steps and what it did, that the last line off a terminal was about"""

    def __enter__(self) -> "View":
        self._redirected = redirect_stdout(self)
        self._redirected.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._redirected.__exit__(*error)

    def write(self, text: str) -> int:
        """What others print goes on to the terminal, and the table is drawn below it next time."""
        self._drawn = 0
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()

    def begin(self, stage: "Stage", parameters: int, steps: int) -> None:
        self.rows[stage.name] = Row(stage, parameters, steps)
        self._draw(stage.name)

    def progress(self, name: str, progress: "Progress") -> None:
        row = self.rows[name]
        if progress.loss is not None:
            row.loss, row.validation_loss = progress.loss, progress.validation_loss
        if progress.loss is not None or row.loss is None:
            row.step, row.doing = progress.step, "" if progress.loss is not None else progress.doing
            row.left = "" if progress.seconds_left is None else duration(progress.seconds_left)
        self._draw(name)

    def done(self, name: str, validation_loss: float, note: str = "done") -> None:
        row = self.rows[name]
        row.step, row.validation_loss, row.left, row.doing = row.steps, validation_loss, note, ""
        self._draw(name)

    def _draw(self, name: str) -> None:
        row = self.rows[name]
        if self._out.isatty():
            # a line that wraps would be two, and moving up would miss its first
            width = shutil.get_terminal_size().columns - 1
            lines = [line[:width] for line in columns(HEADS, [other.cells() for other in self.rows.values()], left=2)]
            up = f"\x1b[{self._drawn}F" if self._drawn else ""
            print(up + "\n".join(f"{line}\x1b[K" for line in lines), file=self._out, flush=True)
            self._drawn = len(lines)
        elif self._shown != (shown := (name, 10 * row.step // row.steps, row.doing)):
            self._shown = shown
            facts = (f"{head} {cell}" for head, cell in zip(HEADS[2:], row.cells()[2:], strict=True) if cell not in "–")
            print(f"{name} ({row.stage.title}): {', '.join(facts)}", file=self._out, flush=True)
