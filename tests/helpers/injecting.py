"""How faults are injected: kills at moments of a seeded clock, small disks, another user, flipped bits, pickles."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

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


class SmallDisk:
    """A disk of so many KiB, a tmpfs in a mount namespace that a sleeping process holds.

    Other processes reach it under `path`, through /proc; it is gone when the block ends, however it ends.
    """

    def __init__(self, place: Path, kibibytes: int) -> None:
        self._place, self._kibibytes = place, kibibytes

    def __enter__(self) -> "SmallDisk":
        self._place.mkdir(parents=True, exist_ok=True)
        script = f"mount -t tmpfs -o size={self._kibibytes}k none {self._place} && echo ready && exec sleep 3600"
        self._holder = subprocess.Popen(["unshare", "--mount", "bash", "-c", script], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.path = Path(f"/proc/{self._holder.pid}/root{self._place}")
        return self

    def grow(self, kibibytes: int) -> None:
        mount = ["mount", "-o", f"remount,size={kibibytes}k", str(self._place)]
        subprocess.run(["nsenter", "--mount", "--target", str(self._holder.pid), *mount], check=True)

    def inside(self, command: Sequence[object]) -> list[str]:
        """The command, run where the disk is mounted: for programs that take /proc's path for the one behind it."""
        return ["nsenter", "--mount", "--target", str(self._holder.pid), "--", *map(str, command)]

    def fill(self) -> None:
        """Takes all that is left of it."""
        with suppress(OSError), (self.path / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))

    def __exit__(self, *_: object) -> None:
        kill(self._holder)
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def can_mount() -> bool:
    if os.geteuid() != 0 or sys.platform != "linux":
        return False
    try:
        probe = "d=$(mktemp -d) && mount -t tmpfs none $d && umount $d && rmdir $d"
        return subprocess.run(["unshare", "--mount", "bash", "-c", probe], capture_output=True).returncode == 0
    except OSError:
        return False


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs root and mount namespaces: for a small disk")


# A user who owns nothing, and may read all: else nobody could run an interpreter that lies in somebody's home
NOBODY = [
    *["setpriv", "--clear-groups", "--reuid", "65534", "--regid", "65534"],
    *["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--"],
]


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
