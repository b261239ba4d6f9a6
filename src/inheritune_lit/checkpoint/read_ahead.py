"""Tensors of checkpoint files, read while those before them are used, in one buffer that is filled in a circle.

Importing this module imports neither torch nor litGPT.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass
class _Slot:
    """Where in the buffer a tensor lies, from its reading to its last use."""

    start: int
    stop: int
    read: "Future[torch.Tensor]"
    used: "Future[Any] | None" = None
    """Done when nobody needs the bytes any more"""

    def overlaps(self, start: int, stop: int) -> bool:
        return self.start < stop and start < self.stop


def read_ahead(
    reads: Sequence[tuple[int, Callable[[memoryview], "torch.Tensor"]]], last_use: Callable[[], "Future[Any]"]
) -> Iterator["torch.Tensor"]:
    """Each tensor, as a view of a buffer a quarter larger than the largest; as many more are read as fit beside it.

    Args:
        reads: For each tensor the bytes that it takes of a buffer, and a function that fills these and returns it.
        last_use: Called when the next tensor is asked for; what it returns ends when the last one's bytes may go.
    """
    buffer = memoryview(bytearray(max(size for size, _ in reads) * 5 // 4))  # not resident before it is used
    ahead, behind, place, left = deque[_Slot](), list[_Slot](), 0, deque(reads)
    with ThreadPoolExecutor(max_workers=1) as thread:
        while left or ahead:
            while left:
                size, read = left[0]
                start = place if place + size <= len(buffer) else 0
                if any(slot.overlaps(start, start + size) for slot in ahead):
                    break
                before = [slot.used for slot in behind if slot.used and slot.overlaps(start, start + size)]
                behind = [slot for slot in behind if not slot.overlaps(start, start + size)]
                read_it = thread.submit(_read, read, buffer[start : start + size], before)
                ahead.append(_Slot(start, start + size, read_it))
                place = -(-(start + size) // 64) * 64  # aligned for any dtype
                left.popleft()
            yield ahead[0].read.result()
            used = ahead.popleft()
            used.used = last_use()
            behind.append(used)


def _read(
    read: Callable[[memoryview], "torch.Tensor"], buffer: memoryview, before: Sequence["Future[Any]"]
) -> "torch.Tensor":
    for use in before:
        use.result()
    return read(buffer)
