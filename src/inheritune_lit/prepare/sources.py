"""Documents out of the files of a folder or a data set: text, JSON lines, Parquet and Arrow.

Unlike datatrove's own readers, which warn and go on, what can't be read is passed on with its file and line, for the
writer to report: a corpus with silent holes can't be reproduced.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson
from datatrove.data import Document
from datatrove.pipeline.readers.base import BaseDiskReader

from inheritune_lit.base.errors import InheritError
from inheritune_lit.prepare.compression import DAMAGE, decompressed, suffixes
from inheritune_lit.prepare.executor import advance
from inheritune_lit.prepare.file_names import ARROW, PARQUET, TEXT
from inheritune_lit.prepare.listing import SourceFile
from inheritune_lit.prepare.tables import Item, rows

EMPTY = "empty file"  # no bad document: Spark and others write such parts
MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark
OTHER_UNICODE = (b"\xff\xfe", b"\xfe\xff")  # the marks of UTF-16 and UTF-32


class CorpusReader(BaseDiskReader):
    """Reads documents: a `.txt` file is one, and so is a line of a `.jsonl` file and a row of a table.

    A document's metadata are its file and line; one that can't be used has no text but a `problem` among them.

    Args:
        input_dir: The folder, or its URL.
        files: All files; task `rank` of R reads files[rank::R], whatever else the folder has in it by then.
        text_key: The key or column of the text.

    Raises:
        InheritError: a record has no text under that key: not one bad line, but the wrong kind of file.
    """

    name = "Corpus"

    def __init__(self, input_dir: str | Path, files: list[SourceFile], text_key: str = "text") -> None:
        super().__init__(str(input_dir), text_key=text_key)
        self.files = files
        self._sizes = {file.path: file.size for file in files}
        self.position = 0  # bytes of the file that is being read that are done

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in self.read_files_shard([file.path for file in self.files[rank::world_size]]):
            self.update_doc_stats(document)
            yield document

    def read_file(self, filepath: str) -> Iterator[Document]:
        self.position, line, reported = 0, 0, 0
        try:
            for line, text, problem in self._items(filepath):
                yield _document(filepath, line, text, problem or _problem_with(text))
                advance(input_bytes=self.position - reported)
                reported = self.position
        except InheritError as error:
            raise InheritError(f"{self.data_folder.resolve_paths(filepath)}, {error}") from error
        except (*DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file
                place = f"{self.data_folder.resolve_paths(filepath)}, after line {line}"
                raise InheritError(f"{place}: {error.strerror}. Mend that, and run the same command again.") from error
            problem = f"damaged file: cut short or not what its name says, after line {line} ({error})"
            yield _document(filepath, line, "", problem)
        else:
            if line == 0:
                yield _document(filepath, 0, "", EMPTY)

    def _items(self, filepath: str) -> Iterator[Item]:
        kind, size = suffixes(filepath)[0], self._sizes[filepath]
        if not size:
            return
        with self.data_folder.open(filepath, "rb") as raw, decompressed(raw, filepath) as file:
            if kind in (*PARQUET, *ARROW):
                for item, share in rows(file, kind in PARQUET, self.text_key, size):
                    self.position = int(size * share)
                    yield item
                return
            for item in _whole(file) if kind in TEXT else _lines(file, self.text_key):
                self.position = raw.tell()
                yield item


def _document(path: str, line: int, text: str, problem: str | None) -> Document:
    metadata = {"file": path, "line": line}
    return Document(text, f"{path}/{line}", metadata=metadata if problem is None else metadata | {"problem": problem})


def _problem_with(text: str) -> str | None:
    if not text.strip():
        return "blank document"
    return "NUL character" if "\0" in text else None


def _whole(file: IO[bytes]) -> Iterator[Item]:
    content = file.read()
    if not content:
        return
    _check_unicode(content)
    try:
        yield 1, content.decode("utf-8-sig"), None  # a leading byte order mark is a signature, not text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield line, "", f"not UTF-8 (byte 0x{content[error.start]:02x} at offset {error.start})"


def _lines(file: IO[bytes], text_key: str) -> Iterator[Item]:
    """Lines end in \\n only, so that a text's own characters stay as they are."""
    first = True
    for number, line in enumerate(file, start=1):
        if number == 1:
            _check_unicode(line)
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if (record := _leniently(line)) is None:
                if first:
                    _check_one_a_line(line, number)
                yield number, "", f"{'broken JSON' if _is_utf8(line) else 'not UTF-8'} ({error})"
                continue
        finally:
            first = False
        yield number, *_text_of(record, text_key, number)


def _leniently(line: bytes) -> Any:
    """What Python's json module writes and orjson refuses, NaN and Infinity, and a byte order mark; None if broken."""
    try:
        return json.loads(line.removeprefix(MARK).decode())
    except (ValueError, RecursionError):
        return None


def _check_unicode(start: bytes) -> None:
    """Such a file would be one bad document, and all others in it lost."""
    zeros = [i for i, byte in enumerate(start[:4]) if not byte]
    if start[:2] in OTHER_UNICODE or zeros in ([1, 3], [0, 2], [1, 2, 3], [0, 1, 2]):
        raise InheritError("line 1: expected UTF-8, got UTF-16 or UTF-32. Convert it: iconv -f UTF-16 -t UTF-8 FILE.")


def _check_one_a_line(line: bytes, number: int) -> None:
    """A file of one JSON value over many lines would be as many broken ones."""
    start = line.removeprefix(MARK).strip()
    if start[:1] in (b"[", b"{") and start[-1:] in (b"[", b"{", b","):
        raise InheritError(
            f"line {number}: expected one JSON object a line, got one value over several lines. Rewrite it: "
            "jq -c '.[]' FILE if it is an array, jq -c . FILE if it is objects."
        )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text_of(record: Any, text_key: str, number: int) -> tuple[str, str | None]:
    """The text and what is wrong with it."""
    text = record.get(text_key) if isinstance(record, dict) else None
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return "", f"broken JSON (half of a surrogate pair at character {error.start})"
        return text, None
    if isinstance(record, dict) and text_key in record and text is None:
        return "", None  # a blank document, as a null in a table is
    found = f"the keys {sorted(record)}" if isinstance(record, dict) else type(record).__name__
    if isinstance(record, dict) and text_key in record:
        found = f'"{text_key}": {type(text).__name__}'
    raise InheritError(f'line {number}: expected an object with a string under "{text_key}", got {found}.')
