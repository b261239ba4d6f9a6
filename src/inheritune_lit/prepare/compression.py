"""Compressed files as streams of bytes, to their true end: what is cut short is an error, not an end."""

import bz2
import gzip
import io
import lzma
from pathlib import PurePath
from typing import IO, Any
from zlib import error as ZlibError

import zstandard

# what reading a damaged file raises, next to OSError without a number, which bz2 and pyarrow raise
DAMAGE = (EOFError, gzip.BadGzipFile, zstandard.ZstdError, ZlibError, lzma.LZMAError)
WINDOW = 2**31  # bytes that Zstandard may look back, `zstd --long=31`: its own limit, which readers set lower


def _lz4(raw: IO[bytes]) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "lz4"))


OPENERS: dict[str, Any] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lz4": _lz4,
    ".zst": lambda raw: io.BufferedReader(_ZstdFile(raw), 2**20),
}
OPENERS |= {".gzip": OPENERS[".gz"], ".lzma": OPENERS[".xz"], ".zstd": OPENERS[".zst"]}


def suffixes(path: str) -> tuple[str, str]:
    """A file's kind and its compression by the end of its name, in lower case: .JSON.GZ is ('.json', '.gz')."""
    name = PurePath(path.lower())
    return (PurePath(name.stem).suffix, name.suffix) if name.suffix in OPENERS else (name.suffix, "")


def decompressed(raw: IO[bytes], path: str) -> IO[bytes]:
    """The bytes inside a file, by its name's suffix."""
    compression = suffixes(path)[1]
    return OPENERS[compression](raw) if compression else raw


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()


class _ZstdFile(io.RawIOBase):
    """Zstandard as a stream of bytes, to the end of the last frame.

    fsspec's and zstandard's own readers stop without a word after the first frame, and where a file is cut short.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = _zstd_frame()
        self._started = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            if not (data := data or self._raw.read(2**18)):
                if self._started and not self._frame.eof:
                    raise EOFError("the last Zstandard frame does not end")
                return 0
            if self._frame.eof:
                self._frame = _zstd_frame()
            self._started = True
            self._ready = memoryview(self._frame.decompress(data))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
