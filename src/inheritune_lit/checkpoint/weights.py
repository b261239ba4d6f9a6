"""The weights in a litGPT checkpoint file: opened without running code from it or filling memory."""

import errno
import hashlib
import mmap
import pickle
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    import torch


PIECE = 2**24  # bytes read at once


class Unreadable(InheritError):
    """A file is there and can't be read now, which says nothing of what is in it."""


@dataclass(frozen=True)
class Record:
    """One storage inside the zip archive that lit_model.pth is."""

    offset: int
    """Where its bytes begin in the file"""
    size: int
    """Bytes"""
    crc32: int
    """As the archive's directory has it"""


class Weights(Mapping[str, "torch.Tensor"]):
    """The model's tensors in a litGPT checkpoint file, mapped: a tensor's bytes are read when it is used.

    Only the `{"model": …}` part of a `litgpt pretrain` checkpoint is looked at, never its optimizer state. The pickle
    is read with `weights_only=True` and without its data, so nothing in it can run.

    Raises:
        InheritError: the file is missing, truncated, in an old format, holds more than tensors, or would run code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = {record.offset: record for record in zip_records(path)}
        self._tensors = _tensor_layout(path)
        with path.open("rb") as file:
            # private and "writable" only because torch warns of read-only buffers; nothing is written
            self._map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        for name in self:
            self.record(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors  # a Mapping's own would read the tensor

    def __getitem__(self, name: str) -> "torch.Tensor":
        """The tensor as a view of the mapped file; a page is read when it is used, and counts as resident then."""
        return self._view(name, self._map, self.record(name).offset)

    def read(self, name: str, buffer: memoryview, *, compare: bool = True) -> "torch.Tensor":
        """The tensor as a view of `buffer`, filled from the file: for passes over everything in little memory.

        Reading into a buffer that stays in the cache takes half as long as faulting mapped pages in. Who has the CRC-32
        from elsewhere calls `compare` with it and need not have it computed here.

        Raises:
            InheritError: the bytes are not those that were saved (CRC-32).
        """
        record = self.record(name)
        fill(buffer[: record.size], self.path, record.offset)
        if compare:
            self.compare(name, zlib.crc32(buffer[: record.size]))
        return self._view(name, buffer, 0)

    def check(self) -> None:
        """Reads all tensors, 16 MiB at a time: whoever uses a view next finds its pages in the cache.

        Not through the map: a page of it that the disk can't give kills the process.

        Raises:
            Unreadable: it can't be read now.
            InheritError: a tensor's bytes are not those that were saved (CRC-32).
        """
        buffer = memoryview(bytearray(PIECE))
        for record, name in {self.record(name): name for name in self}.items():
            found = 0
            for done in range(0, record.size, PIECE):
                piece = buffer[: min(PIECE, record.size - done)]
                fill(piece, self.path, record.offset + done)
                found = zlib.crc32(piece, found)
            self.compare(name, found)

    def compare(self, name: str, found: int) -> None:
        """Compares the CRC-32 of a tensor's storage, as it was found, with that of when it was saved.

        Raises:
            InheritError: they differ.
        """
        expected = self.record(name).crc32
        if found != expected:
            raise InheritError(
                f"{self.path} is corrupt: tensor {name!r} has CRC-32 {found:08x}, expected {expected:08x} as "
                "recorded when it was saved. Fetch or write the checkpoint again."
            )

    def _view(self, name: str, buffer: Any, offset: int) -> "torch.Tensor":
        import torch

        layout = self._tensors[name]
        if layout.numel() == 0:
            return torch.empty(layout.shape, dtype=layout.dtype)
        size = self.record(name).size // layout.itemsize * layout.itemsize
        values = torch.frombuffer(buffer, dtype=torch.uint8, offset=offset, count=size).view(layout.dtype)
        return values.as_strided(layout.shape, layout.stride(), layout.storage_offset())

    def layout(self, name: str) -> "torch.Tensor":
        """The tensor without its data, on the meta device: shape, strides and type, whatever the file holds for it."""
        return self._tensors[name]

    def record(self, name: str) -> Record:
        """The storage behind a tensor; tied tensors share one."""
        storage = self._tensors[name].untyped_storage()
        record = self.records.get(storage._checkpoint_offset or 0)  # torch.load sets it
        if record is None or record.size != storage.nbytes():
            raise InheritError(f"{self.path} is damaged: no storage of {storage.nbytes()} bytes for tensor {name!r}.")
        return record

    def fetch(self, names: Collection[str]) -> None:
        """Brings these tensors here; they are here."""

    def size(self, name: str) -> int:
        """Bytes of the buffer that a tensor is read into."""
        return self.record(name).size

    def is_plain(self, name: str) -> bool:
        """Whether the tensor is its storage, value for value, and no view of a part of it or in another order."""
        layout = self._tensors[name]
        return layout.is_contiguous() and layout.numel() * layout.itemsize == self.record(name).size

    def identity(self, name: str) -> tuple[object, ...]:
        """Equal for two tensors that are the same view of the same bytes, that is, tied."""
        layout = self._tensors[name]
        return self.record(name), layout.shape, layout.stride(), layout.storage_offset()

    def fingerprint(self) -> str:
        """SHA-256 over the names, dtypes, shapes, sizes and CRC-32s of the model's tensors.

        Says which checkpoint this is without reading it: hashing all of a big reference would take longer than surgery.
        """
        digest = hashlib.sha256()
        for name in sorted(self):
            record = self.record(name)
            kind, shape = self._tensors[name].dtype, tuple(self._tensors[name].shape)
            digest.update(f"{name} {kind} {shape} {record.size} {record.crc32:08x}\n".encode())
        return digest.hexdigest()


def not_whole(path: Path, error: Exception, message: str) -> InheritError:
    """What to raise when reading a file failed: Unreadable if its disk or its rights were why, else the message."""
    cause: BaseException | None = error
    while cause is not None:  # zipfile turns some into a BadZipFile
        # EINVAL comes from looking for a place that a damaged directory names
        if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT, errno.EINVAL):
            return Unreadable(
                f"Can't read {path}: {cause.strerror}. Nothing was changed: try again when it can be read."
            )
        cause = cause.__context__
    return InheritError(message)


def fill(buffer: memoryview, path: Path, offset: int) -> None:
    """Fills a buffer with a file's bytes from `offset` on.

    Raises:
        Unreadable: it can't be read now.
        InheritError: it ends before.
    """
    filled = 0
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while filled < len(buffer):
                if not (count := file.readinto(buffer[filled : filled + PIECE])):
                    raise InheritError(f"{path} ended early: it was cut while it was being read.")
                filled += count
    except OSError as error:
        raise not_whole(path, error, f"Can't read {path}: {error}") from error


def zip_records(path: Path) -> list[Record]:
    """The storages in a PyTorch checkpoint file, from its directory at the end: a file without one is not whole.

    Raises:
        Unreadable: it can't be read now.
        InheritError: the file is missing or not whole.
    """
    records = []
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for entry in archive.infolist():
                file.seek(entry.header_offset + 26)  # the local header: its name and extra field differ in length
                name_size, extra_size = (int.from_bytes(file.read(2), "little") for _ in range(2))
                data = entry.header_offset + 30 + name_size + extra_size
                if entry.compress_type == zipfile.ZIP_STORED:
                    records.append(Record(data, entry.file_size, entry.CRC))
    except FileNotFoundError as error:
        raise InheritError(f"{path} is missing: expected the weights of a litGPT checkpoint there.") from error
    except Exception as error:  # zipfile lets through whatever damaged names and sizes cause
        message = (
            f"{path} is not a whole PyTorch checkpoint ({error}): it is truncated, or older than PyTorch 1.6. "
            "Fetch or save it again."
        )
        raise not_whole(path, error, message) from error
    return records


def _tensor_layout(path: Path) -> dict[str, "torch.Tensor"]:
    """The model's tensors without their data: shape, stride, dtype, and where the data lie in the file."""
    import torch

    try:
        content = torch.load(path, weights_only=True, map_location="meta")
    except pickle.UnpicklingError as error:
        raise InheritError(
            f"{path} was not opened: it holds something other than tensors and plain values, which could run code. "
            f"({_first_line(error)})"
        ) from error
    except Exception as error:  # torch's reader lets through whatever a damaged pickle causes, IndexError too
        raise not_whole(path, error, f"{path} is not a whole PyTorch checkpoint: {_first_line(error)}") from error
    model = content.get("model", content) if isinstance(content, dict) else content
    tensors = isinstance(model, dict) and all(isinstance(v, torch.Tensor) for v in model.values())
    if not tensors or not model or not all(isinstance(name, str) for name in model):
        raise InheritError(
            f"{path} holds no model: expected a state dict of tensors, or {{'model': state dict}} as litgpt pretrain "
            f"saves it, got {type(model).__name__}."
        )
    # torch.compile prefixes the names
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in model.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
