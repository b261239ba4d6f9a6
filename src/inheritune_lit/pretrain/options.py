"""What `inheritune pretrain` is told beside the recipe's own settings."""

import shlex
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from inheritune_lit.base.errors import InheritError


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a training is run, whatever it trains; Request says what each means.

    Raises:
        InheritError: a number is below 1, options do not fit together, or the launcher is no command.
    """

    restart: bool = False
    keep_last: int | None = None
    keep_every: int | None = None
    max_spike: float = 3.0
    save_on_signal: bool = False
    launcher: str = ""
    grace: float = 300.0

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_every", "devices", "nodes"):
            if (value := getattr(self, name, None)) is not None and value < 1:
                raise InheritError(f"--{name} {value}: expected 1 or more.")
        if self.keep_every is not None and self.keep_last is None:
            raise InheritError(
                "--keep_every says what to keep beside the newest: pass --keep_last, too. Without it all stay."
            )
        try:
            shlex.split(self.launcher)
        except ValueError as error:
            raise InheritError(f"--launcher {self.launcher!r} is no command: {error}.") from error

    @property
    def before_python(self) -> list[str]:
        """The launcher's words."""
        return shlex.split(self.launcher)


@dataclass(frozen=True)
class Request(Options):
    """Run a `litgpt pretrain` recipe: checked before it starts, resumed where it stopped, watched to its end.

    If the run dies, repeat the command: it resumes from the newest intact checkpoint. `litgpt pretrain --config RECIPE`
    trains the same model; this does around it what litGPT does not.

    Args:
        recipe: The YAML file.
        out_dir: The run's folder; the recipe's own if left out.
        dry_run: Check everything, and start nothing.
        restart: Start from scratch. What is in OUT_DIR is moved into a folder inside it.
        verify: Check files by their sizes and directories, or by every byte.
        devices: GPUs of a node; the recipe's own if left out.
        nodes: Nodes, likewise.
        keep_last: How many of the newest checkpoints to keep, each with a copy of its weights alone in OUT_DIR/weights;
            all if left out.
        keep_every: With keep_last, also keep each checkpoint whose step is a multiple of this.
        max_spike: Stop if a step's loss exceeds the median of the last 100 logged steps by more than this many nats, or
            is not finite.
        max_minutes_lost: Warn if a crash could lose more than this many minutes, and suggest a save_interval.
        save_on_signal: On SIGTERM, save at the end of the step before stopping.
        launcher: What stands before Python, such as "srun --kill-on-bad-exit=1".
        grace: Seconds that the training has to stop by itself after SIGTERM.
    """

    recipe: Path
    _: KW_ONLY
    out_dir: Path | None = None
    dry_run: bool = False
    verify: Literal["sizes", "full"] = "sizes"
    devices: int | None = None
    nodes: int | None = None
    max_minutes_lost: float = 30.0
