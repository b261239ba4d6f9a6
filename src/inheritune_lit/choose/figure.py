"""The search as a picture: which blocks each candidate keeps, and its losses from untrained to the last round."""

from pathlib import Path
from typing import Any

from inheritune_lit.base.figure import BLUE, FAINT, GREEN, ORANGE, PURPLE, SKY, VERMILION, drawing

COLOURS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)


def draw(choice: dict[str, Any], out_dir: Path) -> None:
    """Writes choice.png and choice.svg."""
    rows = choice["candidates"]
    depth = choice["reference"]["n_layer"]
    title = f"{choice['keep']} of {depth} blocks, trained for a short while"
    with drawing(out_dir / "choice", (12, 4.6), title, ncols=2, width_ratios=(3, 2)) as (left, right):
        for i, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
            y = len(rows) - i
            left.scatter(range(depth), [y] * depth, marker="s", s=26, color="#ECECEC")
            left.scatter(row["blocks"], [y] * len(row["blocks"]), marker="s", s=26, color=colour)
            points = [(0, row["untrained"]), *((r["steps"], r["loss"]) for r in row["rounds"])]
            right.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=row["layers"])
        left.set_yticks(range(len(rows), 0, -1), [f"{row['layers']}\n{row['kind']}" for row in rows])
        left.set_xlabel(f"blocks of {choice['reference']['name']} that are kept")
        left.grid(visible=False)
        left.spines["left"].set_visible(False)
        right.axhline(choice["reference"]["loss"], color=FAINT, linewidth=1, linestyle="--", label="whole reference")
        right.set_xlabel(f"optimizer steps of {choice['step_tokens']:,} tokens")
        right.set_ylabel("held-out loss, nats per token")
        right.legend(title="--layers")
