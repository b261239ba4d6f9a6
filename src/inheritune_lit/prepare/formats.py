"""The formats of documents: what a file's name says of it, and compressed files as streams of bytes.

What is cut short is an error there, not an end.
"""

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Sequence
from pathlib import PurePath
from types import SimpleNamespace
from typing import IO, Any
from zlib import error as ZlibError

import pyarrow
import zstandard

# what reading a damaged file raises, next to a plain OSError without a number, which bz2 and pyarrow raise
DAMAGE = (EOFError, gzip.BadGzipFile, zstandard.ZstdError, ZlibError, lzma.LZMAError)
WINDOW = 2**31  # bytes that Zstandard may look back, `zstd --long=31`: its own limit, which readers set lower

OPENERS: dict[str, Any] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lz4": lambda raw: io.BufferedReader(pyarrow.CompressedInputStream(raw, "lz4")),
    ".zst": lambda raw: io.BufferedReader(_ZstdFile(raw), 2**20),
}
OPENERS |= {".gzip": OPENERS[".gz"], ".lzma": OPENERS[".xz"], ".zstd": OPENERS[".zst"]}

TEXT = (".txt", ".text")
LINES = (".jsonl", ".json", ".ndjson", ".jsonlines")
PARQUET = (".parquet", ".parq")
ARROW = (".arrow", ".feather", ".ipc")
EXPECTED = f"{', '.join((*TEXT, *LINES))}, also {', '.join(OPENERS)}, or {', '.join((*PARQUET, *ARROW))}, in any case"

# Hugging Face's datasets, Spark and Delta leave these beside data; their folders' content is no data either
STATE = "state.json"
NOT_DATA = {STATE, "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "_temporary", "_delta_log"}
NOT_DATA |= {"_spark_metadata", "__macosx", "lost+found"}
ABOUT = re.compile(
    r"(readme|licen[cs]e|notice|changelog|citation)(\.\w+)?|_success|(_committed|_started)_.*|_(common_)?metadata", re.I
)
NOT_TEXT = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".crc", ".md5", ".sha256", ".lock", ".yaml", ".yml")
HARMLESS = ("hidden", "about the data", "not text")

# The names that the hub and people give to splits, in a file's or a folder's name
HELD_OUT = dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation")
HELD_OUT |= dict.fromkeys(("heldout", "held_out", "holdout"), "validation") | {"test": "test", "testing": "test"}
SPLITS = (*HELD_OUT, "train", "training")
WORD = re.compile(rf"(?:^|(?<=[\W_]))({'|'.join(SPLITS)})(?=$|[\W_\d])")


def reason_to_leave_out(path: str) -> str | None:
    """Why a file is not read, by its name; None if it is."""
    parts = PurePath(path).parts
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if any(part.lower() in NOT_DATA for part in parts) or ABOUT.fullmatch(parts[-1]):
        return "about the data"
    kind, compression = suffixes(path)
    if kind in NOT_TEXT:
        return "not text"
    if kind in (*TEXT, *LINES):
        return None
    if kind not in (*PARQUET, *ARROW):
        return f"another kind, {kind or 'no suffix'}{compression}"
    if kind in ARROW and parts[-1].startswith("cache-"):
        return "a cache of Hugging Face's datasets"
    return f"a table compressed as a whole, {kind}{compression}" if compression else None


def named_splits(paths: Sequence[str]) -> dict[str, str]:
    """validation or test for each file that is named so.

    A text file's name is free, as in the-test-of-time.txt: the word counts if it stands alone, before a number, or if
    other files are named train.
    """
    found, sure, training = dict[str, str](), set[str](), False
    for path in paths:
        *folders, name = PurePath(path.lower()).parts
        words = [(word, name) for word in WORD.findall(name)] + [(part, "") for part in folders]
        training = training or any(word.startswith("train") for word, _ in words)
        for word, place in words:
            if split := HELD_OUT.get(word):
                found[path] = split
                alone = not place or suffixes(path)[0] not in TEXT or re.match(rf"{word}[-_]?\d*(-of-\d+)?\.", place)
                sure |= {path} if alone else set()
    return {path: split for path, split in found.items() if training or path in sure}


def suffixes(path: str) -> tuple[str, str]:
    """A file's kind and its compression by the end of its name, in lower case: .JSON.GZ is ('.json', '.gz')."""
    name = PurePath(path.lower())
    return (PurePath(name.stem).suffix, name.suffix) if name.suffix in OPENERS else (name.suffix, "")


def decompressed(raw: IO[bytes], path: str) -> IO[bytes]:
    """The bytes inside a file, by its name's suffix."""
    compression = suffixes(path)[1]
    return OPENERS[compression](raw) if compression else raw


class _ZstdFile(io.RawIOBase):
    """Zstandard as a stream of bytes, to the end of the last frame.

    fsspec's and zstandard's own readers stop without a word after the first frame, and where a file is cut short.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._ready = raw, memoryview(b"")
        self._frame: Any = SimpleNamespace(eof=True, unused_data=b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not (data := self._frame.unused_data or self._raw.read(2**18)):
                if not self._frame.eof:
                    raise EOFError("the last Zstandard frame does not end")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
