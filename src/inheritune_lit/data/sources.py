"""Where documents come from: folders of text and JSONL, one domain per top-level subfolder.

Unlike datatrove's own readers, which warn and go on, a line that can't be read is an error that names file and line: a
corpus with silent holes can't be reproduced.
"""

import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zlib import error as ZlibError

import orjson
import zstandard
from datatrove.data import Document
from datatrove.io import get_datafolder
from datatrove.pipeline.readers.base import BaseDiskReader

from inheritune_lit.commit import InheritError
from inheritune_lit.data.executor import advance

KINDS = (".txt", ".jsonl")
COMPRESSIONS = ("", ".gz", ".zst")
SUFFIXES = tuple(kind + compression for kind in KINDS for compression in COMPRESSIONS)


@dataclass(frozen=True)
class SourceFile:
    """A file of documents: its path relative to the input folder, its size in bytes, and the domain it belongs to."""

    path: str
    size: int
    domain: str


def list_files(input_dir: Path) -> list[SourceFile]:
    """The files of documents under a folder, sorted by path; hidden ones and other kinds are left out.

    Raises:
        InheritError: there is no such folder, or nothing in it to read.
    """
    if not input_dir.is_dir():
        raise InheritError(f"{input_dir} is not a folder. Give a folder of {', '.join(SUFFIXES)} files.")
    own_name = input_dir.resolve().name or "text"
    files = []
    for path in get_datafolder(str(input_dir)).list_files():
        parts = Path(path).parts
        if path.endswith(SUFFIXES) and not any(part.startswith(".") for part in parts):
            domain = parts[0] if len(parts) > 1 else own_name
            files.append(SourceFile(path, (input_dir / path).stat().st_size, domain))
    if not files:
        raise InheritError(f"No documents under {input_dir}: expected files named *{', *'.join(SUFFIXES)}.")
    return files


class TextFolderReader(BaseDiskReader):
    """Reads documents: a `.txt` file is one, a line of a `.jsonl` file is one, its text under the key `text`.

    Blank documents are passed on (the writer counts them); what can't be read raises InheritError with file and line.
    """

    name = "Text and JSONL"

    def __init__(self, input_dir: Path, files: list[SourceFile]) -> None:
        """Task `rank` of R reads files[rank::R], whatever else the folder has in it by then."""
        super().__init__(str(input_dir))
        self.files = files

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in self.read_files_shard([file.path for file in self.files[rank::world_size]]):
            self.update_doc_stats(document)
            yield document

    def read_file(self, filepath: str) -> Iterator[Document]:
        line, seen = 0, 0
        try:
            with self.data_folder.open(filepath, "rb") as raw, _decompressed(raw, filepath) as file:
                for line, text in _texts(file, filepath):
                    yield Document(text=text, id=f"{filepath}/{line}", metadata={"file": filepath})
                    if (position := raw.tell()) > seen:
                        advance(input_bytes=position - seen)
                        seen = position
        except (EOFError, gzip.BadGzipFile, zstandard.ZstdError, ZlibError) as error:
            raise InheritError(
                f"{self.data_folder.resolve_paths(filepath)}, after line {line}: the compressed file is cut short or "
                f"damaged ({error}). Get it again, or take it out of the input folder."
            ) from error
        except _BadDocument as error:
            raise InheritError(f"{self.data_folder.resolve_paths(filepath)}, {error}") from error


class _BadDocument(Exception):
    """What is wrong, and in which line."""


def _texts(file: IO[bytes], path: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of each document; lines end in \\n only, so that a text's own characters stay as they are."""
    if path.endswith(tuple(".txt" + compression for compression in COMPRESSIONS)):
        content = file.read()
        try:
            yield 1, content.decode("utf-8-sig")  # a leading byte order mark is a signature, not text
        except UnicodeDecodeError as error:
            number = content.count(b"\n", 0, error.start) + 1
            raise _BadDocument(
                f"line {number}: not UTF-8 (byte 0x{content[error.start]:02x} at offset {error.start}). "
                "Convert the file to UTF-8."
            ) from error
        return
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, _text_of(line, number)


def _text_of(line: bytes, number: int) -> str:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _BadDocument(f"line {number}: not valid JSON ({error}). Mend or remove the line.") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        found = f"the keys {sorted(record)}" if isinstance(record, dict) else type(record).__name__
        if isinstance(record, dict) and "text" in record:
            found = f'"text": {type(record["text"]).__name__}'
        raise _BadDocument(f'line {number}: expected an object with a string under "text", got {found}.')
    return record["text"]


def _decompressed(raw: IO[bytes], path: str) -> IO[bytes]:
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
