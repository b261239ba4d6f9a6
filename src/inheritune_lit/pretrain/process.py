"""`litgpt pretrain` as a process of its own: started, listened to, and never left behind."""

import functools
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeAlias

from inheritune_lit.base.errors import InheritError
from inheritune_lit.pretrain.watch import Diverged, Progress, Watch

Lines: TypeAlias = "queue.SimpleQueue[tuple[float, str] | signal.Signals | None]"
"""(seconds of a monotonic clock, what was printed then); a signal to us; None at the end"""
SAY = functools.partial(print, flush=True)
TICK = 1.0  # seconds between two looks at whether the run stands still


# Kills its process group, a training with all ranks and workers, when its input ends: the launcher, which alone can
# write there, is gone then, even by kill -9. Else they would train on without anyone looking.
GUARD = ("/bin/sh", "-c", "trap '' TERM; read _; kill -9 0")


class Terminated(InheritError):
    """A signal asked this process to stop."""


def listen(
    command: Sequence[str],
    log: Path,
    watch: Watch,
    *,
    environment: Mapping[str, str | None],
    lock: int,
    on_progress: Callable[[Progress], None],
    grace: float,
    on_quiet: Callable[[str], None] = SAY,
) -> int:
    """Runs a training to its end, all that it prints going to `log`.

    Args:
        command: What to run.
        log: The file to append to.
        watch: Understands the lines; its errors stop the run.
        environment: Added to this process' own; None takes a variable away.
        lock: Descriptor of the run folder's lock, which the training holds as well.
        on_progress: Called for each line, and about every second in which there is none.
        grace: Seconds that the training has to end by itself when it is asked to.
        on_quiet: Called when the run stands still, with what to say.

    Returns:
        The exit code; negative for a signal.

    Raises:
        Diverged: the loss went wrong; the training was stopped.
        Terminated: this process was asked to stop, by SIGTERM or SIGINT; so was the training.
    """
    lines: Lines = queue.SimpleQueue()
    started = _started(command, environment, lock)
    with log.open("a", encoding="utf-8") as file, _signals_to(lines), started as (process, group):
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        try:
            reader.start()
            while entry := _next(lines, watch, on_quiet, on_progress):
                printed, line = entry
                file.write(line)
                file.flush()
                on_progress(watch.line(line, printed))
            return process.wait()
        except BaseException as error:
            _stop(process, group, 0 if isinstance(error, Diverged) else grace)  # nobody wants a checkpoint of that
            while reader.ident and (rest := lines.get()):
                file.write(rest[1] if isinstance(rest, tuple) else "")
            raise


def _next(
    lines: Lines, watch: Watch, on_quiet: Callable[[str], None], on_progress: Callable[[Progress], None]
) -> tuple[float, str] | None:
    while True:
        try:
            entry = lines.get(timeout=TICK)
        except queue.Empty:
            if message := watch.stalled(time.monotonic()):
                on_quiet(message)
            on_progress(watch.progress())
            continue
        if isinstance(entry, signal.Signals):
            raise Terminated(f"Stopped by {entry.name}.")
        return entry


def _read(stream: TextIO | None, lines: Lines) -> None:
    assert stream is not None
    for line in stream:
        lines.put((time.monotonic(), line))
    lines.put(None)


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str | None], lock: int
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The training, and its process group, which its ranks and workers are in and a guard: none is left behind."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    # made before the training that joins it, so that there is no moment without a guard; and while it is there, the
    # group's number is nobody else's
    with subprocess.Popen(
        GUARD,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,
    ) as guard:
        try:
            process = subprocess.Popen(
                command,
                env={name: value for name, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=[lock],
                preexec_fn=functools.partial(os.setpgid, 0, guard.pid),
            )
        except OSError as error:  # Python is there, a launcher may not be
            raise InheritError(f"Can't start {shlex.join(command)}: {error}. Is --launcher right?") from error
        with process:
            try:
                yield process, guard.pid
            finally:
                _signal(guard.pid, signal.SIGKILL)  # whoever is left


@contextmanager
def _signals_to(lines: Lines) -> Iterator[None]:
    """SIGTERM and SIGINT as entries of the queue: as exceptions they could come in the middle of starting a process."""
    if threading.current_thread() is not threading.main_thread():  # which alone may catch signals
        yield
        return

    def note(number: int, frame: object) -> None:
        lines.put(signal.Signals(number))  # a SimpleQueue, which allows it in a handler

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(process: "subprocess.Popen[str]", group: int, grace: float) -> None:
    _signal(group, signal.SIGTERM if grace else signal.SIGKILL)
    try:
        process.wait(grace or None)
    except subprocess.TimeoutExpired:
        _signal(group, signal.SIGKILL)
        process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
