"""How faults are injected: kills at moments of a seeded clock, small disks, another user, flipped bits, pickles."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to mount a small disk, or to be someone else")


def inheritune(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "inheritune_lit", *map(str, arguments)]


def ended(command: Sequence[object], **options: object) -> "subprocess.CompletedProcess[str]":
    """A command, run to its end, whatever that is."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def kill(process: "subprocess.Popen[bytes]", group: bool = False) -> bool:
    """kill -9, of it alone or of its whole group; whether it was still alive."""
    alive = process.poll() is None
    if alive:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def kill_after(command: Sequence[str], seconds: float, *, started: Callable[[], bool], group: bool = False) -> bool:
    """Starts a command and kills it with -9 so long after `started`; whether it was still alive then."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None and not started():
            time.sleep(0.002)
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return kill(process, group)


def moments(seed: int, number: int, longest: float) -> list[float]:
    """Seconds, the same for ever."""
    chosen = random.Random(seed)
    return [chosen.uniform(0, longest) for _ in range(number)]


def flip(path: Path, position: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= mask
    path.write_bytes(content)


def on_small_disk(mebibytes: float, place: Path, script: str, *arguments: object) -> list[str]:
    """A command: a bash script run in a mount namespace of its own, where `place` is an empty disk of that size.

    The disk is gone when the script ends. Its arguments are "$@".
    """
    place.mkdir(parents=True, exist_ok=True)
    mount = f"mount -t tmpfs -o size={int(mebibytes * 2**20)} none {place}\n"
    return ["unshare", "--mount", "bash", "-c", mount + script, "bash", *map(str, arguments)]


def can_mount() -> bool:
    if os.geteuid() != 0 or sys.platform != "linux":
        return False
    try:
        probe = "d=$(mktemp -d) && mount -t tmpfs none $d && umount $d && rmdir $d"
        return subprocess.run(["unshare", "--mount", "bash", "-c", probe], capture_output=True).returncode == 0
    except OSError:
        return False


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs root and mount namespaces: for a small disk")


def as_nobody(command: Sequence[object]) -> list[str]:
    """A command run by a user who owns nothing."""
    return [*["setpriv", "--clear-groups", "--reuid", "65534", "--regid", "65534", "--"], *map(str, command)]


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Malice:
    """Pickles into a call that writes a file, the sentinel, when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.sentinel,)
