from typing import Any

import numpy as np
import pytest

from inheritune_lit.base.errors import InheritError
from inheritune_lit.prepare.sampling import SPACE, Budget, Cut, cut, rate_for, sample_hash, split_of

LLAMA = {
    **{"common_crawl": 0.67, "c4": 0.15, "github": 0.045, "wikipedia": 0.045, "book": 0.045},
    **{"arxiv": 0.025, "stackexchange": 0.02},
}


def test_wanted_adds_up_to_the_budget() -> None:
    enough = dict.fromkeys(LLAMA)
    assert Budget(10**9, LLAMA).wanted(enough) == {
        **{"common_crawl": 670_000_000, "c4": 150_000_000, "github": 45_000_000, "wikipedia": 45_000_000},
        **{"book": 45_000_000, "arxiv": 25_000_000, "stackexchange": 20_000_000},
    }
    for tokens in (1, 7, 999, 123_456_789):
        assert sum(Budget(tokens, LLAMA).wanted(enough).values()) == tokens


def test_what_is_missing_is_shared_out() -> None:
    budget = Budget(1000, {"a": 0.5, "b": 0.3, "c": 0.2}, renormalize=True)
    assert budget.wanted({"a": 100, "b": None, "c": None}) == {"a": 100, "b": 540, "c": 360}
    assert budget.wanted({"a": 0, "b": 500, "c": None}) == {"a": 0, "b": 500, "c": 500}  # b is short only because a is
    with pytest.raises(InheritError, match="All domains together have 900 tokens, the budget is 1,000"):
        budget.wanted({"a": 100, "b": 500, "c": 300})


def test_too_little_text_names_what_is_missing() -> None:
    budget = Budget(1000, {"a": 0.5, "b": 0.5})
    have = {"a": 125, "b": 0}
    message = (
        r"Too little text for the budget:\n"
        r"  a: 125 tokens of 500 wanted, 375 are missing \(4\.00 epochs over it\)\n"
        r"  b: 0 tokens of 500 wanted, 500 are missing \(no text at all\)\n.*--allow_repeat .*--renormalize"
    )
    with pytest.raises(InheritError, match=message):
        budget.check(budget.wanted(have), have)
    repeated = Budget(1000, {"a": 0.5, "b": 0.5}, allow_repeat=True)
    with pytest.raises(InheritError, match=r"budget:\n  b: 0 tokens"):  # nothing can't be repeated
        repeated.check(repeated.wanted(have), have)
    both = Budget(1000, {"a": 0.5, "b": 0.5}, allow_repeat=True, renormalize=True)
    assert both.wanted(have) == {"a": 1000, "b": 0}
    both.check(both.wanted(have), have)


def random_domain(documents: int = 2000) -> tuple[Any, Any]:
    rng = np.random.RandomState(0)
    return rng.randint(0, 2**63, documents).astype(np.uint64) * 2, rng.randint(1, 500, documents)


def test_cut_is_the_shortest_beginning_with_what_is_wanted() -> None:
    hashes, lengths = random_domain()
    for wanted in (0, 1, 1000, 123_456, int(lengths.sum())):
        found = cut(hashes, lengths, wanted, repeat=False)
        assert (found.copies, found.tokens) == (0, lengths[hashes < found.bound].sum())
        in_order = np.concatenate([[0], np.cumsum(lengths[np.argsort(hashes)])])
        assert found.tokens == in_order[in_order >= wanted].min()
    assert cut(hashes, lengths, int(lengths.sum()) + 1, repeat=False).tokens == lengths.sum()


def test_cut_does_not_depend_on_order_or_candidates() -> None:
    hashes, lengths = random_domain()
    expected = cut(hashes, lengths, 50_000, repeat=False)
    assert cut(hashes[::-1], lengths[::-1], 50_000, repeat=False) == expected
    assert cut(hashes, lengths, 50_000, repeat=True) == expected
    few = hashes <= np.sort(hashes)[300]
    assert lengths[few].sum() > 50_000
    assert cut(hashes[few], lengths[few], 50_000, repeat=False) == expected


def test_larger_samples_contain_smaller_ones() -> None:
    hashes, lengths = random_domain()
    bounds = [cut(hashes, lengths, wanted, repeat=False).bound for wanted in range(0, 400_000, 20_000)]
    assert bounds == sorted(set(bounds))


def test_equal_documents_are_taken_together() -> None:
    hashes = np.array([5, 5, 5, 9], np.uint64)
    assert cut(hashes, np.array([10, 10, 10, 1]), 10, repeat=False) == Cut(0, 6, 30)
    assert cut(hashes, np.array([10, 10, 10, 1]), 31, repeat=False) == Cut(0, 10, 31)


def test_cut_repeats() -> None:
    hashes, lengths = np.array([SPACE - 1, 3, 7], np.uint64), np.array([5, 3, 2])
    assert cut(hashes, lengths, 25, repeat=True) == Cut(2, 8, 25)
    assert cut(hashes, lengths, 10, repeat=True) == Cut(1, 0, 10)
    assert cut(hashes, lengths, 19, repeat=True) == Cut(1, SPACE, 20)
    assert cut(np.empty(0, np.uint64), np.empty(0, np.int64), 25, repeat=True) == Cut(0, 0, 0)


def test_rate_leaves_a_margin() -> None:
    assert rate_for(100, 1000) == pytest.approx(0.125)
    assert rate_for(900, 1000) == rate_for(10, 0) == 1.0


def test_order_is_frozen_and_independent_of_the_split() -> None:
    """Another function would make other samples, and a larger one would no longer contain a smaller one made before."""
    first = sorted(range(100), key=lambda i: sample_hash(f"document {i}", 42))[:8]
    assert first == [10, 27, 16, 59, 22, 46, 23, 96]
    assert sorted(range(100), key=lambda i: sample_hash(f"document {i}", 43))[:8] != first
    held_out = [f"document {i}" for i in range(20_000) if split_of(f"document {i}", 42, 0.1) == "val"]
    share = sum(sample_hash(text, 42) < SPACE // 10 for text in held_out) / len(held_out)
    assert abs(share - 0.1) < 0.02
