"""Tensors from checkpoint files into another, in little memory: read, checked, hashed and written at the same time.

Importing this module imports neither torch nor litGPT.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from inheritune_lit.commit import InheritError
from inheritune_lit.file_system import sync
from inheritune_lit.weights import Record, Weights, check_finite, zip_records

if TYPE_CHECKING:
    import torch

PROGRESS_BAR_FROM = 2**30  # bytes; smaller checkpoints are done before a bar could be read
PIECE = 2**24  # bytes; what one thread writes and another hashes should still be in the cache


class InMemory(dict[str, "torch.Tensor"]):
    """Tensors that were made here, to be written like those of a checkpoint file (Weights)."""

    def __init__(self, tensors: Mapping[str, "torch.Tensor"], origin: str) -> None:
        super().__init__(tensors)
        self.path = Path(origin)
        """What they are, for messages"""

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self[name].shape)

    def dtype(self, name: str) -> "torch.dtype":
        return self[name].dtype

    def record(self, name: str) -> Record:
        return Record(0, 0, 0)  # nothing is read from a file

    def read(self, name: str, buffer: memoryview) -> "torch.Tensor":
        return self[name]

    def identity(self, name: str) -> tuple[object, ...]:
        return (name,)


@dataclass(frozen=True)
class Part:
    """One tensor of a checkpoint file to be written: where it is read, what is kept of it, what it becomes."""

    weights: Weights | InMemory
    name: str
    dtype: "torch.dtype"
    cut: tuple[tuple[tuple[int, int], ...], ...] = ()
    """For each axis, the ranges start … stop - 1 that are kept, one after the other; () keeps all"""

    @property
    def shape(self) -> tuple[int, ...]:
        if not self.cut:
            return self.weights.shape(self.name)
        return tuple(sum(stop - start for start, stop in ranges) for ranges in self.cut)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def of(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """What becomes of the tensor that was read: cut, in its dtype, contiguous."""
        import torch

        for axis, ranges in enumerate(self.cut):
            kept = [tensor.narrow(axis, start, stop - start) for start, stop in ranges]
            tensor = kept[0] if len(kept) == 1 else torch.cat(kept, dim=axis)
        return tensor.to(self.dtype).contiguous()


def identities(parts: Mapping[str, Part]) -> dict[str, tuple[Any, ...]]:
    """Target tensor name → a key that two targets share if they are one tensor.

    Tensors that are tied in their source stay tied. One that is used in two places becomes two: they train apart.
    """
    used: Counter[tuple[int, str]] = Counter()
    keys = {}
    for target, part in parts.items():
        use = (id(part.weights), part.name)
        keys[target] = (id(part.weights), part.weights.identity(part.name), part.cut, used[use])
        used[use] += 1
    return keys


def distinct(parts: Mapping[str, Part]) -> list[str]:
    """One target name for each tensor that takes space: tied tensors count once."""
    return list({key: target for target, key in identities(parts).items()}.values())


def copy_tensors(parts: Mapping[str, Part], path: Path, *, check_finite: bool) -> str:
    """Writes tensors of checkpoints into a new PyTorch checkpoint file, made durable.

    Args:
        parts: Target tensor name → where it comes from. Tensors that are tied in their source stay tied.
        path: The file to write.
        check_finite: Refuse a NaN or an infinity.

    Returns:
        The file's SHA-256.

    Raises:
        InheritError: a source is corrupt (CRC-32) or not finite, or the file can't be written.
    """
    from tqdm import tqdm

    targets, keys = distinct(parts), identities(parts)
    total = sum(parts[target].numel * parts[target].dtype.itemsize for target in targets)
    stored: dict[tuple[Any, ...], Any] = {}  # by identity, so that tied tensors stay tied
    bar = tqdm(total=total, desc="Writing", unit="B", unit_scale=True, disable=total < PROGRESS_BAR_FROM or None)
    try:
        with bar, path.open("wb", buffering=0) as raw, _Hashing(raw) as file:
            with _incremental_save(file) as saver:
                read = _read_ahead([(parts[target].weights, parts[target].name) for target in targets])
                for target, (name, tensor) in zip(targets, read, strict=True):
                    part = parts[target]
                    if check_finite:
                        _refuse_nan(tensor, name, part.weights.path)
                    tensor = part.of(tensor)
                    if tensor.untyped_storage().nbytes() != tensor.nbytes:
                        tensor = tensor.clone()  # a view of a larger storage would drag all of it along
                    stored[keys[target]] = saver.store_early(tensor)
                    bar.update(tensor.nbytes)
                saver.save({target: stored[key] for target, key in keys.items()})
            digest = file.hexdigest()
        sync(path)
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


def _read_ahead(tensors: Sequence[tuple[Weights | InMemory, str]]) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Each tensor, as a view that the next one may overwrite; the next is read while this one is used.

    Both lie in one buffer of the largest one's size, at its two ends, where they fit: an embedding does not, blocks do.
    """
    sizes = [weights.record(name).size for weights, name in tensors]
    buffer = memoryview(bytearray(max(sizes)))
    with ThreadPoolExecutor(max_workers=1) as thread:
        start, ahead = 0, None
        for i, (weights, name) in enumerate(tensors):
            tensor = ahead.result() if ahead else weights.read(name, buffer[start:])
            here, start, ahead = start, 0, None
            if i + 1 < len(tensors):
                other_end = 0 if here else (len(buffer) - sizes[i + 1]) // 64 * 64  # aligned for any dtype
                if sizes[i + 1] <= here or (here == 0 and sizes[i] <= other_end):
                    start = other_end
                    ahead = thread.submit(tensors[i + 1][0].read, tensors[i + 1][1], buffer[other_end:])
            yield name, tensor


def _refuse_nan(tensor: "torch.Tensor", name: str, path: Path) -> None:
    try:
        check_finite(tensor, name, path)
    except InheritError as error:
        raise InheritError(f"{error} Or pass --no-check_finite to keep them.") from None
