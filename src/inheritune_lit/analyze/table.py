"""What `inheritune analyze` found, as plain text."""

from typing import Any

from inheritune_lit.base.text_table import columns


def table(analysis: dict[str, Any]) -> str:
    """A row for each block: the loss of all up to it, and what it does; then the best blocks to keep, if asked for."""
    model = analysis["model"]
    ours = ("first n", "parameters", "MB", "loss", "±", "rescaled")
    heads = (*ours, "", "block", "rank k*", "mass m*", "cosine", "change", "norm")
    rows = [
        (
            str(depth["n"]),
            f"{depth['parameters'] / 1e6:,.1f} M",
            f"{depth['bytes'] / 1e6:,.0f}",
            f"{depth['loss']:.3f}",
            f"{depth['stderr']:.3f}",
            "–" if depth["loss_rescaled"] is None else f"{depth['loss_rescaled']:.3f}",
            "│",
            str(block["block"]),
            f"{block['rank']:.1f}",
            f"{block['mass']:.1f}",
            f"{block['cosine']:.3f}",
            f"{block['change']:.2f}",
            f"{block['norm']:.1f}",
        )
        for depth, block in zip(analysis["depths"], analysis["blocks"], strict=True)
    ]
    notes = (
        "",
        f"{model['name']} ({model['n_layer']} blocks) on {analysis['windows']} validation windows of "
        f"{analysis['max_seq_length']} tokens, in nats per token:",
        "its first n blocks with its own norm and head, untrained; rescaled: with its norm times the best factor",
        "of 0.1 to 1, which takes away what is mere overconfidence. k*, m*: ranks and columns that hold 90 % of",
        f"the attention, the most of any head, on {analysis['attention_sequences']} sequences. cosine: of a block's "
        "input and output; change: norm",
        "of what it adds / of its input; norm: of the residual stream after it.",
    )
    return "\n".join([*columns(heads, rows, left=0), *notes, *_kept(analysis)])


def _kept(analysis: dict[str, Any]) -> list[str]:
    if analysis["keep"] is not None:
        best = [analysis["keep"]]
    else:  # of a map, the best of each number
        by_number: dict[int, dict[str, Any]] = {}
        for row in analysis["pairs"]:
            n = row["first"] + row["last"]
            by_number[n] = min(by_number.get(n, row), row, key=lambda row: row["loss"])
        first = {depth["n"]: depth["loss"] for depth in analysis["depths"]}
        best = [{"n": n, **row, "first_n_loss": first[n]} for n, row in sorted(by_number.items())]
    lines = [
        f"{row['n']} blocks: --layers {row['layers']} has the lowest loss of all first and last ones, "
        f"{row['loss']:.3f} (the first {row['n']}: {row['first_n_loss']:.3f})"
        for row in best
    ]
    return ["", *lines] if lines else []
