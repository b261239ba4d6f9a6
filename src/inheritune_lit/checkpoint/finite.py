"""Whether a tensor holds a NaN or an infinity. Importing this module imports neither torch nor litGPT."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    import torch

PIECE = 2**20  # bytes; the second look at a piece finds it in the processor's cache


def check_finite(tensor: "torch.Tensor", name: str, path: Path) -> None:
    """Raises InheritError if there is a NaN or an infinity in a tensor of the file `path`."""
    import torch

    if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor):
        bad = int((~torch.isfinite(tensor)).sum())
        raise InheritError(
            f"Tensor {name!r} of {path} holds {bad} NaN or infinite values of {tensor.numel()}. Use another checkpoint."
        )


def _is_finite(tensor: "torch.Tensor") -> bool:
    """Whether all values are finite, by their bits: over bfloat16 in a hundredth of torch.isfinite's time."""
    import numpy as np
    import torch

    if (size := tensor.itemsize) not in (2, 4, 8):
        return bool(torch.isfinite(tensor.float()).all())
    bits = tensor.detach().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[size]).numpy()
    infinity = int(torch.tensor([math.inf], dtype=tensor.dtype).view(torch.uint8).numpy().view(bits.dtype)[0])
    # as numbers with a sign, the largest bits are those of positive infinity and NaN; without one, of negative ones
    sign = 1 << (8 * size - 1)
    pieces = np.array_split(bits.reshape(-1), -(-bits.nbytes // PIECE))
    return all(piece.max() < infinity and piece.view(f"u{size}").max() < infinity + sign for piece in pieces)
