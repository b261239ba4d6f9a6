"""How far apart the losses of one run's first steps may be: by rounding, measured, and by chance, estimated."""

import math
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from inheritune_lit.data import trace

STEPS = tuple(map(str, trace.STEPS))
LEAST = 1e-4
"""Nats that are allowed for any of them: small models in float32 hardly moved, and bigger ones on other machines may"""
ALWAYS = "machine"  # another number of threads, another kind of CPU: no receipt would say so reliably
# The largest differences of a loss in nats that what must not matter made, at the step and all before it
# (benchmarks/reproduce.md), at least LEAST. Mixed precision: of the demo's cut at step 1, a loss of 20, the most.
# A GPU was not measured: it computes in mixed precision. A lock whose own runs say otherwise has its own.
MEASURED: dict[str, dict[str, float]] = {
    **{name: dict.fromkeys(STEPS, LEAST) for name in (ALWAYS, "compiled", "ranks", "resumed")},
    "accumulation": dict(zip(STEPS, (LEAST, 0.065, 0.065, 0.075, 0.075, 0.075), strict=True)),
    **{name: dict.fromkeys(STEPS, 0.031) for name in ("precision", "device")},
}
MARGIN = 3
"""How many times what was measured is allowed: another lab's machine was not among those measured"""


def quantile(freedom: int) -> float:
    """Student's t: what a value stays below in 97.5 % of cases."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def by_chance(values: Sequence[float]) -> tuple[float, float]:
    """(s, t·s·√(1 + 1/n)): how far one more of n values may lie from their mean; 0 of a single value."""
    if len(values) < 2:
        return 0.0, 0.0
    deviation = stdev(values)
    return deviation, quantile(len(values) - 1) * deviation * math.sqrt(1 + 1 / len(values))


def sources(locked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """In which ways two runs computed otherwise, as far as both say."""
    names = [name for name, value in locked.items() if None not in (value, found.get(name)) and value != found[name]]
    if "device" in names and "CPU" not in (locked["device"], found["device"]):
        names[names.index("device")] = ALWAYS  # another kind of GPU
    return sorted({ALWAYS, *names})


def band(first: Mapping[str, Any], step: str, differing: Sequence[str] | None = None) -> float | None:
    """max(δ, t·s·√(1 + 1/n)) of a step in nats, with δ of the sources that apply, or of all; None if one is unknown.

    Args:
        first: A lock's `first_steps`.
        step: Of which a loss is known; `untrained` is as far apart as step 1, and printed with three digits.
        differing: What `sources` said.
    """
    if step == "untrained":
        least = band(first, "1", differing)
        return None if least is None else max(least, 0.0011)
    allowed = first["allowed"]
    sizes = [
        allowed.get(name, {}).get("losses", {}).get(step) for name in (allowed if differing is None else differing)
    ]
    if None in sizes:
        return None
    scale = quantile(first["repeats"] - 1) * math.sqrt(1 + 1 / first["repeats"]) if first["repeats"] > 1 else 0.0
    return max(MARGIN * max(sizes, default=0.0), scale * first["deviation"].get(step, 0.0))
