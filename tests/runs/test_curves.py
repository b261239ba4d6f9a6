import pytest

from inheritune_lit.runs.curves import thinned, tokens_to_reach


def test_tokens_to_reach_is_on_the_line_between_two_points() -> None:
    curve = [(0, 10.0), (100, 6.0), (200, 5.0)]
    assert tokens_to_reach(curve, 8.0) == 50
    assert tokens_to_reach(curve, 5.5) == 150
    assert tokens_to_reach(curve, 12.0) == 0
    assert tokens_to_reach(curve, 4.9) is None


def test_a_thinned_curve_keeps_its_mean_and_its_ends() -> None:
    curve = [(float(x), 10 - x / 100) for x in range(1000)]
    thin = thinned(curve, 100)
    assert len(thin) == 100
    assert sum(y for _, y in thin) / 100 == pytest.approx(sum(y for _, y in curve) / 1000)
    assert thin[0][0] == 4.5
    assert thinned(curve[:7], 7) == curve[:7]
    assert len(thinned(curve[:7], 6)) == 4, "stretches of two, and what is left"
