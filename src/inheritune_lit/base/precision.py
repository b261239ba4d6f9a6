"""Which precision is fast here: a CPU without units for bfloat16 computes with it 3 to 100 times as slowly.

The CPU's flags alone mislead, as it depends on what this build of PyTorch makes of them: so a small product is timed.
"""

import functools
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

SIZE = 256  # of the square matrices: a product of milliseconds, and yet one that is more than its overhead
TRIES = 3
HOPELESS = 10.0  # times as long as float32: no further try


@dataclass(frozen=True)
class Choice:
    """What to train in on this machine."""

    precision: Literal["bf16-mixed", "32-true"]
    slowdown: float | None
    """Time of a product in bfloat16 / in float32 on this CPU; None where there is an accelerator"""

    @property
    def why(self) -> str:
        if self.slowdown is None:
            return f"{self.precision}: there is an accelerator."
        product = f"a product in bfloat16 takes {self.slowdown:.2g} times as long as in float32 on this CPU"
        return f"{self.precision}: {product}."

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"why": self.why}


def fastest() -> Choice:
    """bf16-mixed on an accelerator and on a CPU that is faster with it; else 32-true."""
    slower = slowdown()
    return Choice("bf16-mixed" if slower is None or slower < 1 else "32-true", slower)


@functools.cache
def slowdown(dtype: str = "bfloat16") -> float | None:
    """Processor time of a product and its gradients in a type, as a multiple of that in float32; asked once a process.

    Args:
        dtype: As torch names it.

    Returns:
        None where there is an accelerator, as training takes that.
    """
    import torch

    if torch.accelerator.is_available():
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a thread's own time hardly depends on what else runs on the machine
    try:
        full = _seconds(torch.float32, math.inf)
        return _seconds(getattr(torch, dtype), HOPELESS * full) / full
    finally:
        torch.set_num_threads(threads)


def _seconds(dtype: "torch.dtype", enough: float) -> float:
    """Of the quickest try; the one before them, which is not counted, sets up what all need."""
    import torch

    best = math.inf
    with torch.inference_mode(False), torch.enable_grad():
        x, weight = (torch.ones(SIZE, SIZE, dtype=dtype, requires_grad=True) for _ in range(2))
        for attempt in range(TRIES + 1):
            start = time.thread_time()
            torch.nn.functional.linear(x, weight).sum().backward()
            taken = time.thread_time() - start
            best = min(best, taken) if attempt else best
            if attempt and taken > enough:
                break
    return best


def in_fast_type(model: "torch.nn.Module", device: str) -> "torch.nn.Module":
    """A model for inference: its floats in float32 if they are 16 bits wide and this CPU is slower with those."""
    import torch

    kind = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    name = str(kind).removeprefix("torch.")
    if device != "cpu" or kind not in (torch.bfloat16, torch.float16) or (slower := slowdown(name) or 0.0) <= 1:
        return model
    print(f"Computing in float32: a product in {name} takes {slower:.2g} times as long on this CPU.", flush=True)
    return model.float()
