"""What holds for every input, not for the ones that come to mind: layer specs, sampling, windows, the global order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.layers import parse_layers
from inheritune_lit.data.manifest import Manifest, Shard, Split
from inheritune_lit.data.order import GlobalOrder, Windows, epoch_order
from inheritune_lit.prepare.sampling import MARGIN, Budget, cut

settings.register_profile("project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


# --layers


@st.composite
def layer_lists(draw: Any) -> tuple[int, list[int], str]:
    """A depth, distinct blocks of it in any order, and a way to spell them."""
    n_layer = draw(st.integers(2, 40))
    blocks = draw(st.lists(st.integers(0, n_layer - 1), min_size=2, unique=True))
    parts, i = [], 0
    while i < len(blocks):
        j = i
        while j + 1 < len(blocks) and blocks[j + 1] == blocks[j] + 1:
            j += 1
        as_range = j > i and draw(st.booleans())
        as_slice = not as_range and draw(st.booleans())
        if as_range:
            parts.append(f"{blocks[i]}-{blocks[j]}")
        elif as_slice:
            parts.append(f"{blocks[i]}:{blocks[j] + 1}")
        else:
            parts += [str(block) for block in blocks[i : j + 1]]
        i = j + 1
    return n_layer, blocks, draw(st.sampled_from([",", ", "])).join(parts)


@given(layer_lists())
def test_however_blocks_are_spelt(case: tuple[int, list[int], str]) -> None:
    n_layer, blocks, spelt = case
    if spelt.isdecimal():  # a single number is how many, by design
        return
    assert parse_layers(spelt, n_layer) == blocks


@given(st.integers(1, 40), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_slices_are_pythons(n_layer: int, start: int, stop: int, step: int) -> None:
    expected = list(range(n_layer))[start:stop:step]
    spelt = f"{start}:{stop}:{step}"
    if expected and max(start, stop) <= n_layer:
        assert parse_layers(spelt, n_layer) == expected
    else:
        with pytest.raises(InheritError):
            parse_layers(spelt, n_layer)


@given(st.text(alphabet="0123456789-:, x٣", max_size=12), st.integers(1, 40))
def test_any_text_gives_distinct_blocks_of_the_model_or_our_error(spelt: str, n_layer: int) -> None:
    try:
        blocks = parse_layers(spelt, n_layer)
    except InheritError:
        return
    assert blocks
    assert len(set(blocks)) == len(blocks)
    assert all(0 <= block < n_layer for block in blocks)


# Sampling


DOMAINS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 1000), min_size=1, max_size=7)


@given(DOMAINS, st.integers(1, 10**12))
def test_shares_add_up_to_the_budget_exactly(weights: dict[str, int], tokens: int) -> None:
    shares = {domain: weight / sum(weights.values()) for domain, weight in weights.items()}
    wanted = Budget(tokens, shares).wanted(dict.fromkeys(shares))
    assert sum(wanted.values()) == tokens
    assert all(abs(wanted[domain] - tokens * share) <= 1 + tokens * 1e-12 for domain, share in shares.items())


@given(DOMAINS, st.integers(1, 10**9), st.data())
def test_renormalized_shares_add_up_and_ask_no_domain_for_more_than_it_has(
    weights: dict[str, int], tokens: int, data: st.DataObject
) -> None:
    shares = {domain: weight / sum(weights.values()) for domain, weight in weights.items()}
    have: dict[str, int | None] = {d: data.draw(st.one_of(st.none(), st.integers(0, tokens))) for d in shares}
    try:
        wanted = Budget(tokens, shares, renormalize=True).wanted(have)
    except InheritError:
        assert all(limit is not None for limit in have.values())
        assert sum(limit or 0 for limit in have.values()) < tokens
        return
    assert sum(wanted.values()) == tokens
    for domain, limit in have.items():
        assert limit is None or wanted[domain] <= limit


DOCUMENTS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 500)), min_size=1, max_size=40)


def _cut(documents: list[tuple[int, int]], wanted: int, *, repeat: bool = False) -> tuple[Any, int]:
    hashes = np.array([h for h, _ in documents], dtype=np.uint64)
    lengths = np.array([n for _, n in documents], dtype=np.int64)
    found = cut(hashes, lengths, wanted, repeat=repeat)
    return found, sum(n for h, n in documents if h < found.bound)


@given(DOCUMENTS, st.integers(1, 20_000))
def test_a_sample_is_the_shortest_beginning_that_is_enough(documents: list[tuple[int, int]], wanted: int) -> None:
    found, taken = _cut(documents, wanted)
    total = sum(n for _, n in documents)
    assert found.copies == 0
    assert found.tokens == taken
    assert taken >= min(wanted, total)
    last = max((h for h, _ in documents if h < found.bound), default=0)
    assert sum(n for h, n in documents if h < last) < wanted  # without its last document it is too short


@given(DOCUMENTS, st.integers(1, 5000), st.integers(1, 5000))
def test_a_larger_sample_holds_the_smaller_one(documents: list[tuple[int, int]], one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert _cut(documents, small)[0].bound <= _cut(documents, large)[0].bound


@given(DOCUMENTS, st.integers(1, 100_000))
def test_a_domain_that_is_too_small_is_taken_as_often_as_it_needs(
    documents: list[tuple[int, int]], wanted: int
) -> None:
    found, taken = _cut(documents, wanted, repeat=True)
    total = sum(n for _, n in documents)
    assert found.tokens == found.copies * total + taken >= wanted
    assert found.copies == wanted // total


@given(DOCUMENTS, st.integers(1, 2000), st.floats(0.01, 1))
def test_the_cut_is_the_same_for_any_candidates_that_are_enough(
    documents: list[tuple[int, int]], wanted: int, rate: float
) -> None:
    candidates = [(h, n) for h, n in documents if h < rate * 2**64]
    if sum(n for _, n in candidates) >= wanted:
        assert _cut(candidates, wanted)[0] == _cut(documents, wanted)[0]
    assert MARGIN > 1


# Windows and the global order


def make_windows(folder: Path, lengths: list[int], max_seq_length: int) -> tuple[Windows, np.ndarray]:
    """Windows over shards of these lengths, whose tokens count up, and the stream they are cut from."""
    stream = np.arange(sum(lengths), dtype="<u2")
    start, shards = 0, []
    for i, length in enumerate(lengths):
        (folder / f"{i}.ds").write_bytes(stream[start : start + length].tobytes())
        shards.append(Shard(f"{i}.ds", length, "0"))
        start += length
    manifest = Manifest.__new__(Manifest)
    manifest.folder, manifest.dtype, manifest.tokenizer = folder, "uint16", {"vocab_size": 2**16}
    manifest.splits = {"train": Split(tuple(shards), len(stream), len(lengths), len(stream))}
    return Windows(manifest, "train", max_seq_length), stream


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=6), max_seq_length=st.integers(1, 12))
def test_every_token_but_the_first_is_a_target_once(tmp_path: Path, lengths: list[int], max_seq_length: int) -> None:
    if sum(lengths) <= max_seq_length:
        with pytest.raises(InheritError, match="fewer than one window"):
            make_windows(tmp_path, lengths, max_seq_length)
        return
    windows, stream = make_windows(tmp_path, lengths, max_seq_length)
    batch = windows.__getitems__(range(len(windows))).numpy()
    assert (batch[:, :-1].ravel() == stream[: batch[:, :-1].size]).all()
    assert (batch[:, 1:].ravel() == stream[1 : 1 + batch[:, 1:].size]).all()
    assert len(stream) - 1 - len(windows) * max_seq_length < max_seq_length  # what is left is no whole window


class _Length:
    def __init__(self, windows: int) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return self.windows


def read(windows: int, epochs: int, ranks: int, micro_batch: int, start: int) -> list[int]:
    """The global order, as `ranks` ranks read it micro-batch by micro-batch from global sample `start` on."""
    by_rank = []
    for rank in range(ranks):
        order = GlobalOrder(
            _Length(windows),  # type: ignore[arg-type]
            seed=7,
            epochs=epochs,
            batch_size=micro_batch,
            rank=rank,
            ranks=ranks,
        )
        order.start = start
        by_rank.append(list(order))
        assert len(by_rank[-1]) == len(order)
    return [window for together in zip(*by_rank, strict=True) for window in together]


@given(
    windows=st.integers(1, 40),
    epochs=st.integers(1, 4),
    ranks=st.integers(1, 5),
    micro_batch=st.integers(1, 4),
    start=st.integers(0, 60),
)
def test_ranks_micro_batches_and_resuming_change_nothing(
    windows: int, epochs: int, ranks: int, micro_batch: int, start: int
) -> None:
    whole = [int(window) for epoch in range(epochs) for window in epoch_order(windows, 7, epoch)]
    found = read(windows, epochs, ranks, micro_batch, min(start, len(whole)))
    assert found == whole[start : start + len(found)]
    assert 0 <= len(whole[start:]) - len(found) < ranks * micro_batch  # only what fills no micro-batch is left out
    for epoch in range(epochs):
        assert sorted(whole[epoch * windows : (epoch + 1) * windows]) == list(range(windows))
