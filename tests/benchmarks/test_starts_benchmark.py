import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.models import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import starts
import starts_data
import starts_tables


def test_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of arm once; then nothing is missing, and the tables have them beside those that were there."""
    arguments = ["--tiny", "--family", "own", "--folder", str(tmp_path)]
    starts.main(arguments)
    arms = [json.loads(path.read_text()) for path in (tmp_path / "arms").iterdir()]
    assert {arm["kept"] for arm in arms} >= {"first 8", "2 + 6", "1 + 3", "random"}
    assert all(arm["curve"][0][0] == 0 and arm["curve"][-1][0] == 4 for arm in arms)
    assert len({arm["last"][0] for arm in arms}) > 10, "arms differ"
    capsys.readouterr()
    starts.main(arguments)
    assert "tokens/s" not in capsys.readouterr().out

    monkeypatch.setattr(starts_tables, "RESULTS", tmp_path / "starts.json")
    results = starts_tables.take(tmp_path)
    assert len(results["arms"]) == len(arms)
    text = starts_tables.spoken(results)
    best = min(results["arms"], key=starts_tables.last)
    assert f"**{starts_tables.last(best):.3f}**" in text
    assert starts_tables.take(tmp_path / "none") == results, "what was measured stays"


@pytest.mark.parametrize(("bits", "steps"), [(4, 15), (8, 254)])
def test_quantised_weights_come_back(bits: int, steps: int) -> None:
    """Values that lie on a grid of a block's range go back to it."""
    draw = np.random.default_rng(0)
    grid = draw.integers(0, steps + 1, (8, 32)).astype(np.float32)
    grid[:, 0], grid[:, 1] = 0, steps
    weight = ((grid - 127 * (bits == 8)) / 64).astype(np.float32).reshape(16, 16)
    parts = starts_data.packed(weight, bits)
    assert np.abs(starts_data.unpacked(parts, (16, 16)) - weight).max() < 2e-3 * np.abs(weight).max()


def test_the_shipped_tables_are_those_of_the_results() -> None:
    results = json.loads(starts_tables.RESULTS.read_text())
    assert starts_tables.PAGE.read_text().endswith(starts_tables.spoken(results))
