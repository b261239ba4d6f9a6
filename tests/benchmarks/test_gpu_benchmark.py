"""benchmarks/gpu.py in its tiny form on a CPU: it runs, resumes, and the numbers of its tables agree."""

import json
import statistics
import sys
from pathlib import Path

import pytest
from helpers.models import ROOT

from inheritune_lit.__main__ import main as inheritune

sys.path.insert(0, str(ROOT / "benchmarks"))


def in_process(module: str, *arguments: object) -> float:
    """A command without the seconds that a process of its own takes to import."""
    inheritune([*module.removeprefix("inheritune_lit").strip(".").split(), *map(str, arguments)])
    return 1.0


@pytest.mark.filterwarnings("ignore")  # PyTorch's profiler and Lightning's loaders have some of their own
def test_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu

    monkeypatch.setattr(gpu, "command", in_process)
    monkeypatch.setattr(gpu, "LOSS_STEPS", 3)
    monkeypatch.setattr(gpu.surgery_benchmark, "MODEL", gpu.surgery_benchmark.MODEL)  # --tiny sets another
    out = tmp_path / "gpu.md"
    out.write_text("Measured by hand.\n")
    sections = ["surgery", "speed", "profile", "losses", "analyze", "gpt2"]
    tiny = ["--tiny", "--folder", str(tmp_path / "gpu"), "--out", str(out), "--sections"]
    gpu.main([*tiny, *sections])
    page = out.read_text()
    assert page.startswith("Measured by hand.")  # what stands above the marker stays
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    speed = json.loads((tmp_path / "gpu/results/speed.json").read_text())
    assert list(speed) == ["1", "2"]
    for name, row in speed.items():
        shown = next(line for line in lines if line[0] == name)
        seconds, rate, tera = (float(cell.replace(",", "")) for cell in shown[1:4])
        assert seconds == pytest.approx(statistics.median(row["seconds"]["packed"]), abs=0.001)
        assert seconds * rate == pytest.approx(row["tokens"], rel=0.02) == 4 * 64
        assert tera * 1e12 == pytest.approx(rate * row["flops_per_token"], rel=0.02)
        assert row["planned"]["total"] > row["planned"]["in_use"] > 0
    exact, mixed = json.loads((tmp_path / "gpu/results/losses.json").read_text()).values()
    assert exact == pytest.approx(mixed, abs=0.05)
    assert exact != mixed
    shares = [float(line[1].strip("%")) for line in lines if line[0].startswith("`")]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert 50 < sum(shares) <= 100
    capsys.readouterr()
    monkeypatch.setattr(gpu, "steps_of", None)  # whatever was measured is not measured again
    gpu.main([*tiny, *sections])
    assert out.read_text() == page


def test_what_is_missing_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu

    monkeypatch.setitem(gpu.NEEDED, "torch", "99.0")
    monkeypatch.setitem(gpu.NEEDED, "no-such-package", "1.0")
    with pytest.raises(SystemExit, match=r"(?s)torch is 2\.\d+.*: 99.0 or newer.*no-such-package is not installed"):
        gpu.main(["--folder", str(tmp_path / "gpu")])
    assert not (tmp_path / "gpu").exists()
