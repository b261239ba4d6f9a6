"""A launch's parts without litGPT's training: what it prints, the process around it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.watching import line

from inheritune_lit.base.folders import locked
from inheritune_lit.pretrain import Progress, process
from inheritune_lit.pretrain.bar import Bar, saving_advice
from inheritune_lit.pretrain.process import Terminated, listen
from inheritune_lit.pretrain.watch import Diverged, Watch


def test_watch_reads_litgpts_lines() -> None:
    watch = Watch(100, stall_least=5.0)
    first = watch.line(line(1, 5.0, "6.500"), 10.0)
    assert (first, watch.untrained) == (Progress("training", 1, 100, None, 5.0, 6.5), 6.5)
    for step in range(2, 12):
        progress = watch.line(line(step, 5.0), 9.0 + step)
    assert progress == Progress("training", 11, 100, 89.0, 5.0, 6.5)
    assert watch.line("iter 22: val loss 4.2500, val time: 3.0 ms", 100.0).loss is None
    after = watch.line(line(12, 5.0), 110.0)  # a validation is no step's time
    assert after == Progress("training", 12, 100, 88.0, 5.0, 4.25)
    assert watch.stalled(119.9) is None
    assert "No step for 10 s since step 12; they took 1.00 s" in str(watch.stalled(120.1))
    assert watch.stalled(130) is None, "said once"
    for said in ("Validating ...", "Saving checkpoint to 'step-00000013/lit_model.pth'"):
        watch.line(line(13, 5.0), 120.5)
        watch.line(said, 120.6)
        assert watch.stalled(1000) is None, "that takes its time"
    with pytest.raises(Diverged, match=r"The validation loss is nan at step 13") as info:
        watch.line("iter 26: val loss nan, val time: 3.0 ms", 120.7)
    assert (info.value.first, info.value.last) == (13, 13)
    with pytest.raises(Diverged) as info:  # before the first step that is logged
        Watch(100).line("iter 2: val loss nan, val time: 3.0 ms", 0.0)
    assert (info.value.first, info.value.last) == (1, 1)
    with pytest.raises(Diverged, match=r"jumped to 8.100 at step 15, 3.100 above the median of the 14") as info:
        watch.line(line(15, 8.1), 121.0)
    assert (info.value.first, info.value.last) == (14, 15)
    for loss in ("nan", "inf"):
        with pytest.raises(Diverged, match=f"The loss is {loss} at step 1"):
            Watch(100).line(line(1, loss), 0.0)
    assert Watch(100, max_spike=4.0).line(line(1, 8.9), 0.0).loss == 8.9


def test_what_goes_on_before_the_first_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With an estimate as soon as one micro-batch of four is through, long before a step is logged."""
    watch = Watch(100, accumulation=4)
    said = {
        "Seed set to 42": Progress("loading", 0, 100),
        "Validating ...": Progress("validating", 0, 100),
        "Measured TFLOPs: 0.05": Progress("first step", 0, 100),
        "Micro-batch 1 begins": Progress("first step", 0, 100),
        "Micro-batch 2 begins": Progress("first step", 0, 100, 4 * 10.0 * 100),
    }
    with Bar() as bar:
        for i, (text, expected) in enumerate(said.items()):
            assert watch.line(text, 10.0 * i) == expected
            bar(expected)
        shown = capsys.readouterr().err
        assert all(word in shown for word in ("loading", "validating", "first step", "0/100", "about 1 h 07 min left"))
        first = watch.line(line(1, 5.0), 65.0)
        assert first == Progress("training", 1, 100, 35.0 * 99, 5.0), "the whole step is known now: 65 - 30 s"
        bar(first)
        bar(watch.line("Validating ...", 66.0))
    shown = capsys.readouterr().err
    assert "1/100" in shown
    assert "validating" in shown


def test_how_often_to_save() -> None:
    progress = Progress("training", 100, 1100, 36000.0, 3.0)  # 36 s a step
    assert saving_advice(progress, 50, 30) is None
    assert "a kill may lose 60 minutes. For 30 at most" in str(saving_advice(progress, 100, 30))
    assert "train.save_interval: 50" in str(saving_advice(progress, None, 30))


def heard(command: str, folder: Path, **options: Any) -> tuple[int, list[Progress], list[str]]:
    """The exit code of a shell command, its progress, and what was said of its standing still."""
    progress: list[Progress] = []
    quiet: list[str] = []

    def stalled(message: str) -> None:
        quiet.append(message)
        if "step 12" in message:
            (folder / "said").touch()

    with locked(folder / "run") as lock:
        code = listen(
            ["bash", "-c", command],
            folder / "log",
            Watch(100, stall_least=0.1),
            environment={"ANSWER": "42"},
            lock=lock,
            on_progress=progress.append,
            on_quiet=stalled,
            **{"grace": 30.0} | options,
        )
    return code, progress, quiet


def test_a_process_is_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK", 0.05)
    lines = "; ".join(f"echo '{line(step, 3.0)}'" for step in range(1, 13))
    code, progress, quiet = heard(
        f"{lines}; echo $ANSWER >&2; until [ -e {tmp_path}/said ]; do sleep 0.05; done; exit 7", tmp_path
    )
    assert (code, [p.step for p in progress if p.loss is not None]) == (7, list(range(1, 13)))
    assert " s since step 12; they took " in quiet[-1]
    assert (tmp_path / "log").read_text().endswith("\n42\n")
    code, waits, _ = heard("sleep 0.5; kill -9 $$", tmp_path)
    assert code == -9
    assert set(waits) == {Progress("loading", 0, 100)}
    assert len(waits) > 1, "again and again while nothing is printed"


def test_what_goes_wrong_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        heard(f"echo $$ > pid; echo '{line(1, 'nan')}'; sleep 60".replace("pid", str(tmp_path / "pid")), tmp_path)
    assert not is_alive(tmp_path / "pid")


def test_sigterm_lets_the_training_save(tmp_path: Path) -> None:
    command = f"trap 'echo saved > {tmp_path}/saved; exit 143' TERM; kill -TERM {os.getpid()}; sleep 60 & wait"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated, match="Stopped by SIGTERM"):
        heard(command, tmp_path)
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert signal.getsignal(signal.SIGTERM) == before
    started = time.monotonic()
    with pytest.raises(Terminated):  # one that does not listen
        heard(f"trap '' TERM; kill -TERM {os.getpid()}; while true; do sleep 0.1; done", tmp_path, grace=0.2)
    assert time.monotonic() - started < 30


LAUNCHER = """
from pathlib import Path
from inheritune_lit.pretrain.process import listen
from inheritune_lit.pretrain.watch import Watch
command = ["bash", "-c", "sleep 600 & echo $! > {0}/rank; echo $$ > {0}/pid; wait"]
log, ignore = Path("{0}/log"), lambda heard: None
listen(command, log, Watch(1), environment={{}}, lock=0, on_progress=ignore, grace=1)
"""


def test_killing_the_launcher_kills_the_training(tmp_path: Path) -> None:
    """With what it has started: Lightning starts the other ranks so."""
    with subprocess.Popen([sys.executable, "-c", LAUNCHER.format(tmp_path)]) as launcher:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert launcher.poll() is None
            time.sleep(0.01)
        assert is_alive(tmp_path / "pid")
        assert is_alive(tmp_path / "rank")
        launcher.kill()
    deadline = time.monotonic() + 60
    while is_alive(tmp_path / "pid") or is_alive(tmp_path / "rank"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: Path) -> bool:
    state = Path(f"/proc/{pid.read_text().strip()}/status")
    return state.exists() and "State:\tZ" not in state.read_text()
