"""Counts what the tests of faults/ do: faults injected, survived, and bytes of committed files lost to them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

Fault = Callable[..., AbstractContextManager[None]]


@dataclass
class Tally:
    """Of a whole test session."""

    injected: int = 0
    survived: int = 0
    bytes_lost: int = 0


TALLY = Tally()


def contents(*places: Path) -> dict[Path, bytes]:
    """Every file under some folders, or the files themselves, with its bytes."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    return {file: file.read_bytes() for file in files if file.is_file()}


def lost(before: dict[Path, bytes]) -> int:
    """Bytes of files, as they were, that are not there any more or are others now."""
    bytes_lost = 0
    for file, old in before.items():
        new = file.read_bytes() if file.is_file() else b""
        if old != new:
            bytes_lost += sum(a != b for a, b in zip(old, new, strict=False)) + abs(len(old) - len(new))
    return bytes_lost


@contextmanager
def _fault(*committed: Path) -> Iterator[None]:
    """One fault: the block injects it and checks what is promised; `committed` must be the same bytes after it."""
    before = contents(*committed)
    assert all(place.exists() for place in committed), "what is guarded has to be there"
    TALLY.injected += 1
    yield
    bytes_lost = lost(before)
    TALLY.bytes_lost += bytes_lost
    assert not bytes_lost, f"{bytes_lost} bytes of committed files were lost"
    TALLY.survived += 1
