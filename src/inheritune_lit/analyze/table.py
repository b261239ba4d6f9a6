"""What `inheritune analyze` found, as plain text."""

from typing import Any

from inheritune_lit.base.text_table import columns


def table(analysis: dict[str, Any]) -> str:
    """A row for each block: the loss of all up to it, and what it does."""
    model = analysis["model"]
    ours = ("first n", "parameters", "MB", "loss", "±")
    heads = (*ours, "", "block", "rank k*", "mass m*", "cosine", "change", "norm")
    rows = [
        (
            str(depth["n"]),
            f"{depth['parameters'] / 1e6:,.1f} M",
            f"{depth['bytes'] / 1e6:,.0f}",
            f"{depth['loss']:.3f}",
            f"{depth['stderr']:.3f}",
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
        "its first n blocks with its own norm and head, untrained. k*, m*: ranks and columns that hold 90 % of the",
        f"attention, the most of any head, on {analysis['attention_sequences']} sequences. cosine: of a block's input "
        "and output; change: norm of",
        "what it adds / of its input; norm: of the residual stream after it.",
    )
    return "\n".join([*columns(heads, rows, left=0), *notes])
