"""Compressed files as streams of bytes, to their true end: what is cut short is an error, not an end."""

import gzip
import io
from typing import IO, Any
from zlib import error as ZlibError

import zstandard

COMPRESSIONS = ("", ".gz", ".zst")
DAMAGE = (EOFError, gzip.BadGzipFile, zstandard.ZstdError, ZlibError)  # what reading a damaged file raises


def decompressed(raw: IO[bytes], path: str) -> IO[bytes]:
    """The bytes inside a file, by its name's suffix."""
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if path.endswith(".zst"):
        return io.BufferedReader(_ZstdFile(raw), 2**20)
    return raw


class _ZstdFile(io.RawIOBase):
    """Zstandard as a stream of bytes, to the end of the last frame.

    fsspec's and zstandard's own readers stop without a word after the first frame, and where a file is cut short.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
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
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._started = True
            self._ready = memoryview(self._frame.decompress(data))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
