"""The losses of a run's first steps, noted where they are computed: of each micro-batch, on each rank.

litGPT logs the first rank's losses alone. These are of all samples of a step, whatever the ranks and the micro-batch.
"""

import os
from pathlib import Path
from typing import Any

VARIABLE = "INHERITUNE_TRACE"
"""SAMPLES:FOLDER has PackedTokens note the losses of a training's first samples there"""

STEPS = (1, 2, 5, 10, 20, 30)
"""Optimizer steps whose losses two runs are compared by, before much is spent"""


class Trace:
    """What one rank notes, a line a micro-batch: the global samples before and after it, the ranks, its mean loss."""

    def __init__(self, rank: int, ranks: int) -> None:
        samples, _, folder = os.environ.get(VARIABLE, "0:").partition(":")
        self.samples, self.ranks = int(samples), ranks
        self.path = Path(folder) / f"rank{rank}.txt"

    def note(self, end: int, size: int, loss: Any) -> None:
        """Notes the loss of the micro-batch with which all ranks have seen `end` samples, `size` of them now.

        A tensor is waited for only where it is noted.
        """
        if end <= self.samples:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:  # begins with the line's end: a kill may have cut it
                file.write(f"\n{end - size} {end} {self.ranks} {float(loss)!r}\n")


def step_losses(folder: Path, batch: int) -> dict[int, float]:
    """Optimizer step, from 1 → mean loss in nats per token over its `batch` windows on all ranks.

    Steps that were not noted whole are left out. What a resumed run did again replaces what it did before.
    """
    ranks: dict[int, dict[int, tuple[int, int, float]]] = {}
    for path in folder.glob("rank*.txt"):
        kept: dict[int, tuple[int, int, float]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                start, end, count, loss = (
                    kind(word) for kind, word in zip((int, int, int, float), line.split(), strict=True)
                )
            except ValueError:  # empty, or cut by a kill
                continue
            kept = {other: entry for other, entry in kept.items() if other <= start} | {end: (start, count, loss)}
        ranks[int(path.stem.removeprefix("rank"))] = kept
    first = ranks.get(0, {})
    found: dict[int, float] = {}
    for step in sorted({-(-end // batch) for end in first}):
        counts = {count for end, (_, count, _) in first.items() if (step - 1) * batch < end <= step * batch}
        parts = [
            (end - start, loss)
            for rank in range(max(counts))
            for end, (start, _, loss) in ranks.get(rank, {}).items()
            if (step - 1) * batch <= start and end <= step * batch
        ]
        if len(counts) == 1 and sum(size for size, _ in parts) == batch * max(counts):
            found[step] = sum(size * loss for size, loss in parts) / (batch * max(counts))
    return found
