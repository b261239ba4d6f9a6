"""Tensors from checkpoint files into another, in little memory: read, checked, hashed and written at the same time.

Importing this module imports neither torch nor litGPT.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.file_system import sync
from inheritune_lit.checkpoint.read_ahead import read_ahead
from inheritune_lit.checkpoint.weights import Weights, zip_records

if TYPE_CHECKING:
    import torch

PROGRESS_BAR_FROM = 2**30  # bytes; smaller checkpoints are done before a bar could be read
PIECE = 2**24  # bytes; what one thread writes and another hashes should still be in the cache
SMALL = 2**12  # bytes; the writer's own headers are smaller


class InMemory(dict[str, "torch.Tensor"]):
    """Tensors that were made here, to be written like those of a checkpoint file (Weights)."""

    def __init__(self, tensors: Mapping[str, "torch.Tensor"], origin: str) -> None:
        super().__init__(tensors)
        self.path = Path(origin)
        """What they are, for messages"""

    def layout(self, name: str) -> "torch.Tensor":
        return self[name]

    def read(self, name: str, buffer: memoryview, *, compare: bool = True) -> "torch.Tensor":
        return self[name]


@dataclass(frozen=True)
class TensorCopy:
    """One tensor of a checkpoint file to be written: where it is read, what is kept of it, what it becomes."""

    weights: Weights | InMemory
    name: str
    dtype: "torch.dtype"
    cut: tuple[tuple[tuple[int, int], ...], ...] = ()
    """For each axis, the ranges start … stop - 1 that are kept, one after the other; () keeps all"""

    @property
    def shape(self) -> tuple[int, ...]:
        if not self.cut:
            return tuple(self.weights.layout(self.name).shape)
        return tuple(sum(stop - start for start, stop in ranges) for ranges in self.cut)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the buffer that it is read into."""
        return self.weights.size(self.name) if isinstance(self.weights, Weights) else 0

    @property
    def saved(self) -> Weights | None:
        """The source, if its storage is written as it is: the CRC-32 of what was written tells if it was whole."""
        weights, whole = self.weights, not self.cut and self.dtype == self.weights.layout(self.name).dtype
        return weights if whole and isinstance(weights, Weights) and weights.is_plain(self.name) else None

    def of(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """What becomes of the tensor that was read: cut, in its dtype, contiguous."""
        import torch

        for axis, ranges in enumerate(self.cut):
            kept = [tensor.narrow(axis, start, stop - start) for start, stop in ranges]
            tensor = kept[0] if len(kept) == 1 else torch.cat(kept, dim=axis)
        return tensor.to(self.dtype).contiguous()


def identities(copies: Mapping[str, TensorCopy]) -> dict[str, tuple[Any, ...]]:
    """Target tensor name → a key that two targets share if they are one tensor.

    Tensors that are tied in their source stay tied. One that is used in two places becomes two: they train apart.
    """
    used: Counter[tuple[int, str]] = Counter()
    keys = {}
    for target, copy in copies.items():
        weights, use = copy.weights, (id(copy.weights), copy.name)
        tensor = weights.identity(copy.name) if isinstance(weights, Weights) else copy.name
        keys[target] = (id(weights), tensor, copy.cut, used[use])
        used[use] += 1
    return keys


def distinct(copies: Mapping[str, TensorCopy]) -> list[str]:
    """One target name for each tensor that takes space: tied tensors count once."""
    return list({key: target for target, key in identities(copies).items()}.values())


def copy_tensors(copies: Mapping[str, TensorCopy], path: Path, *, check_finite: bool) -> str:
    """Writes tensors of checkpoints into a new PyTorch checkpoint file, made durable.

    Args:
        copies: Target tensor name → where it comes from. Tensors that are tied in their source stay tied.
        path: The file to write.
        check_finite: Refuse a NaN or an infinity.

    Returns:
        The file's SHA-256.

    Raises:
        InheritError: a source is corrupt (CRC-32) or not finite, or the file can't be written.
    """
    from tqdm import tqdm

    targets, keys = distinct(copies), identities(copies)
    total = sum(copies[target].numel * copies[target].dtype.itemsize for target in targets)
    stored: dict[tuple[Any, ...], Any] = {}  # by identity, so that tied tensors stay tied
    bar = tqdm(total=total, desc="Writing", unit="B", unit_scale=True, disable=total < PROGRESS_BAR_FROM or None)
    try:
        with bar, path.open("wb", buffering=0) as raw, _Hashing(raw) as file:
            reads = [(copies[target].size, partial(_read, copies[target], check_finite)) for target in targets]
            with _incremental_save(file) as saver:
                for target, read in zip(targets, read_ahead(reads, lambda: file.hashed), strict=True):
                    tensor = copies[target].of(read)
                    if tensor.untyped_storage().nbytes() != tensor.nbytes:
                        tensor = tensor.clone()  # a view of a larger storage would drag all of it along
                    file.lasting = tensor.data_ptr() == read.data_ptr()
                    stored[keys[target]] = saver.store_early(tensor)
                    file.lasting = False
                    bar.update(tensor.nbytes)
                saver.save({target: stored[key] for target, key in keys.items()})
            digest = file.hexdigest()
        sync(path)
    except RuntimeError as error:
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
            raise InheritError(f"Writing {path} failed: the disk is full or a size limit was hit. ({error})") from error
        raise
    # raises if the writer was cut short without saying so; it has written the tensors first, in this order
    for copy, record in zip(map(copies.__getitem__, targets), zip_records(path), strict=False):
        if copy.saved:
            copy.saved.compare(copy.name, record.crc32)
    return digest


def check_finite(tensor: "torch.Tensor", name: str, path: Path) -> None:
    """Raises InheritError if there is a NaN or an infinity in a tensor of the file `path`."""
    import torch

    values = tensor.float() if tensor.itemsize == 1 else tensor  # float8 has no sum
    # what is not finite makes the sum so; a sum that only overflows is looked into, in some twenty times as long
    if not torch.isfinite(values.sum()) and (bad := int((~torch.isfinite(values)).sum())):
        raise InheritError(
            f"Tensor {name!r} of {path} holds {bad} NaN or infinite values of {tensor.numel()}. Use another checkpoint."
        )


def _read(copy: TensorCopy, check: bool, buffer: memoryview) -> "torch.Tensor":
    tensor = copy.weights.read(copy.name, buffer, compare=not copy.saved)
    if check:
        try:
            check_finite(tensor, copy.name, copy.weights.path)
        except InheritError as error:
            copy.weights.read(copy.name, buffer)  # a corrupt tensor may hold anything: then that is what is said
            raise InheritError(f"{error} Or pass --no-check_finite to keep them.") from None
    return tensor


class _Hashing:
    """What PyTorch's writer writes to: a file whose bytes are hashed by another thread while they are written.

    Hashing the file afterwards, or as it grows, would read all of it again.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._digest, self._thread = raw, hashlib.sha256(), ThreadPoolExecutor(max_workers=1)
        self.hashed: Future[None] = self._thread.submit(lambda: None)
        """Done when all that was written is hashed"""
        self.lasting = False
        """Large pieces of memory stay as they are until they are hashed, and need not be waited for"""

    def __enter__(self) -> "_Hashing":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def write(self, data: memoryview) -> int:
        self.hashed = self._thread.submit(self._digest.update, bytes(data) if len(data) < SMALL else data)
        rest = data
        try:
            while rest:
                rest = rest[self._raw.write(rest[:PIECE]) :]
        finally:
            if not self.lasting:
                self.hashed.result()
        return len(data)

    def hexdigest(self) -> str:
        self.hashed.result()
        return self._digest.hexdigest()


def _incremental_save(file: _Hashing) -> Any:
    """litGPT's incremental_save, writing to an object instead of a path, which is all that it takes."""
    import torch
    from litgpt.utils import incremental_save

    saver = incremental_save(os.devnull)
    saver.zipfile = torch._C.PyTorchFileWriter(file)  # type: ignore[call-overload]  # it only calls write()
    return saver
