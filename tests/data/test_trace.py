"""The losses of the first steps: whole, of all ranks, and the last ones where a run was resumed."""

from pathlib import Path

import pytest

from inheritune_lit.data.trace import VARIABLE, Trace, step_losses

BATCH = 8


def note(monkeypatch: pytest.MonkeyPatch, folder: Path, losses: list[float], *, micro: int, **at: int) -> None:
    """Micro-batches of `micro` windows, all ranks together, from the sample `start` on."""
    monkeypatch.setenv(VARIABLE, f"{4 * BATCH}:{folder}")
    trace, end = Trace(at.get("rank", 0), at.get("ranks", 1)), at.get("start", 0)
    for loss in losses:
        end += micro
        trace.note(end, micro, loss)


def test_steps_are_means_over_their_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(monkeypatch, tmp_path, [1.0, 2.0, 5.0, 7.0, 9.0], micro=4)
    assert step_losses(tmp_path, BATCH) == {1: 1.5, 2: 6.0}, "the third step is not whole"


def test_all_ranks_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(monkeypatch, tmp_path, [1.0, 2.0], micro=4, ranks=2)
    assert step_losses(tmp_path, BATCH) == {}, "the other rank's losses are missing"
    note(monkeypatch, tmp_path, [3.0, 6.0], micro=4, rank=1, ranks=2)
    assert step_losses(tmp_path, BATCH) == {1: 3.0}


def test_what_was_done_again_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(monkeypatch, tmp_path, [1.0, 2.0, 90.0], micro=4)
    with (tmp_path / "rank0.txt").open("a") as file:
        file.write("12 16 1 9")  # cut by a kill: a number all the same
    note(monkeypatch, tmp_path, [3.0, 4.0, 5.0, 6.0], micro=2, start=8)
    assert step_losses(tmp_path, BATCH) == {1: 1.5, 2: 4.5}


def test_nothing_is_noted_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(monkeypatch, tmp_path, [1.0] * 12, micro=4)
    assert len((tmp_path / "rank0.txt").read_text().split("\n\n")) == 8, "only so many samples"
    monkeypatch.delenv(VARIABLE)
    Trace(0, 1).note(4, 4, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["rank0.txt"]


def test_what_was_done_again_with_larger_micro_batches_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(monkeypatch, tmp_path, [1.0, 2.0, 90.0], micro=4)
    note(monkeypatch, tmp_path, [4.0], micro=8, start=8)
    assert step_losses(tmp_path, BATCH) == {1: 1.5, 2: 4.0}
