"""What a launch is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Request:
    """What the command line says beside the recipe."""

    run: Path
    devices: int | None = None
    nodes: int | None = None
    verify: Literal["sizes", "full"] = "sizes"
    keep_last: int | None = None
    keep_every: int | None = None
    restart: bool = False
    dry_run: bool = False
    launcher: tuple[str, ...] = ()
