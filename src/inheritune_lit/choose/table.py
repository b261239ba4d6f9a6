"""What `inheritune choose` found, as plain text, and what it means."""

import textwrap
from typing import Any

from inheritune_lit.base.text_table import columns


def table(choice: dict[str, Any]) -> str:
    """A row for each candidate, the winner first; then the verdict and rules that hold for any such cut."""
    lengths = sorted({r["steps"] for row in choice["candidates"] for r in row["rounds"]})
    heads = ("--layers", "kind", "untrained", *(f"{n} steps" for n in lengths), "±")
    rows = []
    for row in choice["candidates"]:
        losses = {r["steps"]: f"{r['loss']:.3f}" for r in row["rounds"]}
        last = row["rounds"][-1]["stderr"]
        rows.append(
            (
                row["layers"],
                row["kind"],
                f"{row['untrained']:.3f}",
                *(losses.get(n, "–") for n in lengths),
                f"{last:.3f}",
            )
        )
    notes = (
        f"Loss on {choice['windows']} held-out windows of {choice['max_seq_length']} tokens, nats per token, ± its "
        f"standard error. The whole reference, not trained here: {choice['reference']['loss']:.3f}. "
        f"{len(choice['untrained'])} cuts were compared untrained, on {choice['untrained_windows']} windows."
    )
    return "\n".join(
        [
            *columns(heads, rows, left=2),
            "",
            *textwrap.wrap(notes, 110),
            "",
            *map(_wrapped, [verdict(choice), *rules(choice)]),
        ]
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 110, subsequent_indent="  ")


def verdict(choice: dict[str, Any]) -> str:
    """One sentence, honest about a lead that may be chance."""
    won = choice["winner"]
    lead = f"{won['lead']:.3f} ± {won['stderr']:.3f} nats below --layers {won['runner_up']} on the same windows"
    if won["clear"]:
        return f"Keep --layers {won['layers']}: {lead}."
    return (
        f"No clear winner: --layers {won['layers']} is {lead}, less than twice the standard error. Either will do, or "
        f"repeat with more --steps than {choice['steps']} or more --windows."
    )


def rules(choice: dict[str, Any]) -> list[str]:
    """What to expect of a cut of this depth, with sources."""
    keep, depth = choice["keep"], choice["reference"]["n_layer"]
    found = []
    if keep < depth / 2:
        middle = round((keep * depth) ** 0.5)
        found.append(
            f"This leaves out more than half of the blocks. Two cuts with a training between them lose less than one "
            f"(Minitron, arXiv 2408.11796, MMLU 42.5 after 15B → 8B → 4B, 37.8 after one cut): choose --keep {middle} "
            f"here first, train it, then `inheritune choose RUN/final --keep {keep}`. The order of choices also "
            "settles later than with half of the blocks (benchmarks/starts.md): give it more --steps."
        )
    if keep < depth / 5:
        found.append("Below a fifth of the blocks little but the embeddings is inherited: compare with a random start.")
    found.append(
        "Knowledge comes back before generative reasoning does: MMLU 62 %, GSM8K 4 % of the parent's after 36 → 22 "
        "blocks (NVIDIA Model-Optimizer). Evaluate what you need."
    )
    return found
