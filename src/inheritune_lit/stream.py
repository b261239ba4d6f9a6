"""Tensors from one checkpoint file into another, in little memory: read, checked, hashed and written at the same time.

Importing this module imports neither torch nor litGPT.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from inheritune_lit.checkpoint import Weights, zip_records
from inheritune_lit.commit import InheritError

if TYPE_CHECKING:
    import torch

PROGRESS_BAR_FROM = 2**30  # bytes; smaller checkpoints are done before a bar could be read
PIECE = 2**24  # bytes; what one thread writes and another hashes should still be in the cache


def distinct(weights: Weights, names: Mapping[str, str]) -> list[str]:
    """One target name for each tensor that takes space: tied tensors count once. `names` is target → source."""
    return list({weights.identity(source): target for target, source in names.items()}.values())


def copy_tensors(
    weights: Weights, names: Mapping[str, str], dtypes: Mapping[str, "torch.dtype"], path: Path, *, check_finite: bool
) -> str:
    """Writes tensors of a checkpoint into a new PyTorch checkpoint file, made durable.

    Args:
        weights: The source.
        names: Target tensor name → source tensor name. Tensors that are tied in the source stay tied.
        dtypes: Target tensor name → what it is converted to.
        path: The file to write.
        check_finite: Refuse a NaN or an infinity.

    Returns:
        The file's SHA-256.

    Raises:
        InheritError: the source is corrupt (CRC-32) or not finite, or the file can't be written.
    """
    from tqdm import tqdm

    targets = distinct(weights, names)
    sources = [names[target] for target in targets]
    total = sum(weights.numel(names[target]) * dtypes[target].itemsize for target in targets)
    stored: dict[tuple[Any, ...], Any] = {}  # by identity, so that tied tensors stay tied
    bar = tqdm(total=total, desc="Writing", unit="B", unit_scale=True, disable=total < PROGRESS_BAR_FROM or None)
    try:
        with bar, path.open("wb", buffering=0) as raw, _Hashing(raw) as file:
            with _incremental_save(file) as saver:
                for target, (source, tensor) in zip(targets, _read_ahead(weights, sources), strict=True):
                    if check_finite:
                        _check_finite(tensor, source, weights.path)
                    tensor = tensor.to(dtypes[target]).contiguous()
                    if tensor.untyped_storage().nbytes() != tensor.nbytes:
                        tensor = tensor.clone()  # a view of a larger storage would drag all of it along
                    stored[weights.identity(source)] = saver.store_early(tensor)
                    bar.update(tensor.nbytes)
                saver.save({target: stored[weights.identity(source)] for target, source in names.items()})
            os.fsync(raw.fileno())
            digest = file.hexdigest()
    except RuntimeError as error:
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
            raise InheritError(f"Writing {path} failed: the disk is full or a size limit was hit. ({error})") from error
        raise
    zip_records(path)  # raises if the writer was cut short without saying so
    return digest


class _Hashing:
    """What PyTorch's writer writes to: a file whose bytes are hashed by another thread while they are written.

    Hashing the file afterwards, or as it grows, would read all of it again.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._digest, self._thread = raw, hashlib.sha256(), ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> "_Hashing":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def write(self, data: memoryview) -> int:
        pieces = [data[i : i + PIECE] for i in range(0, len(data), PIECE)]
        hashed = self._thread.submit(self._hash, pieces)
        try:
            for piece in pieces:
                while piece:
                    piece = piece[self._raw.write(piece) :]
        finally:
            hashed.result()  # the memory is PyTorch's again once we return
        return len(data)

    def _hash(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._digest.update(piece)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _incremental_save(file: _Hashing) -> Any:
    """litGPT's incremental_save, writing to an object instead of a path, which is all that it takes."""
    import torch
    from litgpt.utils import incremental_save

    saver = incremental_save(os.devnull)
    saver.zipfile = torch._C.PyTorchFileWriter(file)  # type: ignore[call-overload]  # it only calls write()
    return saver


def _read_ahead(weights: Weights, names: Sequence[str]) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Each tensor, as a view that the next one may overwrite; the next is read while this one is used.

    Both lie in one buffer of the largest one's size, at its two ends, where they fit: an embedding does not, blocks do.
    """
    sizes = [weights.record(name).size for name in names]
    buffer = memoryview(bytearray(max(sizes)))
    with ThreadPoolExecutor(max_workers=1) as thread:
        start, ahead = 0, None
        for i, name in enumerate(names):
            tensor = ahead.result() if ahead else weights.read(name, buffer[start:])
            here, start, ahead = start, 0, None
            if i + 1 < len(names):
                other_end = 0 if here else (len(buffer) - sizes[i + 1]) // 64 * 64  # aligned for any dtype
                if sizes[i + 1] <= here or (here == 0 and sizes[i] <= other_end):
                    start, ahead = other_end, thread.submit(weights.read, names[i + 1], buffer[other_end:])
            yield name, tensor


def _check_finite(tensor: "torch.Tensor", name: str, path: Path) -> None:
    import torch

    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    # the extremes are NaN if any value is, and one pass over bfloat16 takes a hundredth of isfinite's time
    low, high = (extreme.float() for extreme in torch.aminmax(tensor))
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise InheritError(
            f"Tensor {name!r} of {path} holds {bad} NaN or infinite values of {tensor.numel()}. Use another "
            "checkpoint, or pass --no-check_finite to keep them."
        )
