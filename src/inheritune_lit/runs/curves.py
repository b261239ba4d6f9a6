"""What a loss curve says, as points of (tokens trained, loss in nats)."""

from collections.abc import Sequence
from itertools import pairwise


def tokens_to_reach(curve: Sequence[tuple[int, float]], loss: float) -> float | None:
    """Tokens after which a validation curve first is at `loss` or below, on straight lines between its points.

    A falling loss curve bends upwards, so that its chords lie above it: this says rather too many tokens.

    Returns:
        The number of tokens, or None if the curve does not get there.
    """
    if curve and curve[0][1] <= loss:
        return float(curve[0][0])
    for (tokens, high), (next_tokens, low) in pairwise(curve):
        if low <= loss:
            return tokens + (next_tokens - tokens) * (high - loss) / (high - low)
    return None


def thinned(curve: Sequence[tuple[float, float]], points: int) -> list[tuple[float, float]]:
    """At most `points` points: the means of equal stretches of the curve, for a plot."""
    size = -(-len(curve) // points)
    if size <= 1:
        return list(curve)
    stretches = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]
