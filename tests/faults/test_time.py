"""A clock that jumps, and folders that are copied elsewhere: neither decides anything."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers.faults import Fault
from helpers.injecting import ended
from helpers.models import ROOT
from helpers.small_runs import TRAIN, make_recipe, same_state

from inheritune_lit.base.folders import locked
from inheritune_lit.pretrain import train
from inheritune_lit.pretrain.process import listen
from inheritune_lit.pretrain.watch import Watch
from inheritune_lit.runs.folder import read_run

# Python runs sitecustomize.py at its start, wherever it lies on the path
JUMPING = """
import itertools, time
years, real = itertools.cycle([0, 10, -20, 3, -0.5]), time.time
time.time = lambda: real() + next(years) * 365 * 86400
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_stall_is_told_by_a_clock_that_does_not_jump(
    tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Years pass between two steps, by the clock on the wall: no stall; then some real time without a step: a stall."""
    years = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: next(years) * 3.15e7)
    line = "Epoch 1 | iter {0} step {0} | loss train: 5.0, val: n/a | iter time: 1.0 ms (step)"
    steps = f"import os, time\nfor i in range(1, 31): print({line!r}.format(i), flush=True); time.sleep(0.02)\n"
    told = tmp_path / "told"
    waits = f"while not os.path.exists({str(told)!r}): time.sleep(0.02)\n"
    said: list[str] = []

    def stalled(message: str) -> None:
        said.append(message)
        if "step 30" in message:
            told.touch()

    for script, least, expected in ((steps, 60.0, 0), (steps + waits, 0.5, 1)):  # no pause of this machine's is 60 s
        with fault(), locked(tmp_path / "run") as lock:
            code = listen(
                [sys.executable, "-c", script],
                *(tmp_path / "log", Watch(31, stall_least=least)),
                environment={},
                lock=lock,
                on_progress=lambda progress: None,
                on_quiet=stalled,
                grace=5,
            )
        assert code == 0
        assert len(said) >= expected
        assert told.exists() or not said, said


def test_nothing_asks_the_clock_on_the_wall() -> None:
    """Durations come from monotonic clocks; strftime dates launches in records, for people to read."""
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert "time.time()" not in text, path
        assert "datetime.now" not in text, path
        assert "st_mtime" not in text, path


@pytest.mark.faults_long
def test_training_under_a_clock_that_jumps(tmp_path: Path, fault: Fault) -> None:
    """All processes have years between two looks at the clock; then a run is copied elsewhere and resumed."""
    recipe = make_recipe(tmp_path, 30)
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    train(recipe, tmp_path / "calm")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(JUMPING)
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    check = ended([sys.executable, "-c", "import time; print(time.time() - time.time())"], env={"PYTHONPATH": path})
    assert abs(float(check.stdout)) > 1e7, "the clock jumps"
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, tmp_path / "recipe.yaml"]
    with fault(tmp_path / "tokens"):
        done = ended([*command, tmp_path / "jumping"], env=os.environ | {"PYTHONPATH": path})
        assert done.returncode == 0, done.stderr
        assert same_state(tmp_path / "jumping", tmp_path / "calm")
    receipt = read_run(tmp_path / "jumping").receipt
    assert 0 < receipt["seconds"] < 3600
    assert receipt["tokens_per_second"] > 0

    # copied elsewhere without what came after step 20, with its start and its data; the old places are gone
    elsewhere = tmp_path / "elsewhere"
    for name in ("open_llama_tiny", "tokens"):
        shutil.copytree(tmp_path / name, elsewhere / name)
    shutil.copytree(tmp_path / "calm", elsewhere / "run")
    for name in ("step-00000030", "final", "model"):
        shutil.rmtree(elsewhere / "run" / name)
    (elsewhere / "run/run.json").unlink()
    (tmp_path / "tokens").rename(tmp_path / "gone")
    (tmp_path / "open_llama_tiny").rename(tmp_path / "gone_too")
    moved = yaml.safe_load((tmp_path / "recipe.yaml").read_text().replace(str(tmp_path), str(elsewhere)))
    with fault(elsewhere / "run/step-00000020", tmp_path / "calm"):
        receipt = train(moved, elsewhere / "run")
        assert [launch["from_step"] for launch in receipt["launches"]] == [0, 20]
        assert same_state(elsewhere / "run", tmp_path / "calm")
