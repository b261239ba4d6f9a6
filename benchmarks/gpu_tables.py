"""The tables of benchmarks/gpu.md, from what benchmarks/gpu.py measured: {row: figures} of each section."""

import statistics
from typing import Any

GOAL, LOADER_GOAL = 0.58, 0.01  # of the card's peak, by a recipe's settings alone; of a step's time, for the data


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def of_speed(rows: dict[str, Any]) -> str:
    head = ["", "s a step", "tokens/s", "TFLOP/s", "of the peak", "data path", "nvidia-smi's peak", "foreseen"]
    lines = []
    for name, row in sorted(rows.items(), key=lambda item: item[1]["micro_batch"]):
        rate, share, reached = rates(row)
        of_peak = f"{reached:.1%}" if reached else "–"
        flops, planned = rate * row["flops_per_token"] / 1e12, row["planned"]
        lines.append([
            name, f"{row['tokens'] / rate:.3f}", f"{rate:,.0f}", f"{flops:,.3g}", of_peak, f"{share:+.1%}",
            gib(row["used"]), gib(planned["total"]), gib(row["in_use"]), gib(planned["in_use"]),
        ])  # fmt: skip
    return table([*head, "in use", "foreseen"], lines)


def rates(row: dict[str, Any]) -> tuple[float, float, float]:
    """Tokens/s on PackedTokens, what they add to a step on a tensor on the card, the share of the card's peak."""
    packed, on_card = (statistics.median(row["seconds"][kind]) for kind in ("packed", "on_card"))
    rate = row["tokens"] / packed
    return rate, packed / on_card - 1, rate * row["flops_per_token"] / (row["peak_flops"] or float("inf"))


def of_goals(rows: dict[str, Any]) -> str:
    """The goals beside the best row, in a sentence."""
    most, best = max(rates(row)[1] for row in rows.values()), max(rows, key=lambda name: rates(rows[name])[0])
    return (
        f"The data path adds {most:+.1%} to a step at most; the goal is {LOADER_GOAL:.0%}. The best micro-batch is "
        f"{best}, with {rates(rows[best])[2]:.1%} of the peak; the goal is {GOAL:.0%}, by what a recipe sets, which is "
        "its micro-batch alone."
    )


def gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size else "–"


def of_losses(rows: dict[str, Any]) -> str:
    if len(rows) < 2:
        return "Not whole."
    exact, mixed = (rows[precision] for precision in ("32-true", "bf16-mixed"))
    shown = [i for i in (0, 4, 9, 14, 19) if i < len(exact)]
    lines = [[str(i + 1), f"{exact[i]:.4f}", f"{mixed[i]:.4f}", f"{mixed[i] - exact[i]:+.4f}"] for i in shown]
    most = max(abs(a - b) for a, b in zip(exact, mixed, strict=True))
    return table(["step", "float32", "bf16-mixed", "difference"], lines) + f"\n\nAt most {most:.4f} apart."


def of_surgery(rows: dict[str, Any]) -> str:
    lines = [
        [name, f"{row['bytes'] / 1e9:.2f} GB", f"{row['seconds']:.1f}", f"{row['dd']:.1f}"]
        for name, row in rows.items()
    ]
    return table(["", "written", "whole command (s)", "dd (s)"], lines)


def of_resume(rows: dict[str, Any]) -> str:
    row = rows["weights"]
    return (
        f"12 steps whole, and killed after the fourth and started again ({row['launches']} launches): "
        f"{row['equal']} of {row['tensors']} tensors equal to the bit, at most {row['most']:.3g} apart."
    )


def of_profile(rows: dict[str, Any]) -> str:
    lines = next(iter(rows.values()))["lines"]
    return table(
        ["kernel", "of a step"], [[f"`{name[:80]}`".replace("|", "/"), f"{share:.1%}"] for name, share in lines]
    )


SECTIONS = {
    "speed": ("The main recipe by micro-batch", lambda rows: f"{of_speed(rows)}\n\n{of_goals(rows)}"),
    "expandable": ("The same with PYTORCH_ALLOC_CONF=expandable_segments:True", of_speed),
    "autotune": ("The same with TORCHINDUCTOR_MAX_AUTOTUNE=1", of_speed),
    "gpt2": ("GPT-2", of_speed),
    "losses": ("bf16-mixed beside float32", of_losses),
    "resume": ("Stopped and resumed by `inheritune pretrain`", of_resume),
    "surgery": ("Surgery", of_surgery),
    "analyze": (
        "Analyze",
        lambda rows: f"`inheritune analyze`: {rows['whole']['seconds']:.1f} s, imports included.",
    ),
    "profile": ("Where a step's time goes", of_profile),
}
