"""Documents out of the files of a folder or a data set: text, JSON lines, Parquet and Arrow.

Unlike datatrove's own readers, which warn and go on, what can't be read is passed on with its file and line, for the
writer to report: a corpus with silent holes can't be reproduced.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow
import pyarrow.parquet
from datatrove.data import Document
from datatrove.pipeline.readers.base import BaseDiskReader
from pyarrow import types

from inheritune_lit.base.errors import InheritError
from inheritune_lit.prepare.executor import advance
from inheritune_lit.prepare.formats import ARROW, DAMAGE, PARQUET, TEXT, decompressed, suffixes
from inheritune_lit.prepare.listing import SourceFile

# A document, or what is wrong with it: (line or row number, text, problem or None).
Item = tuple[int, str, str | None]
BATCH_ROWS = 1000
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
            damaged = isinstance(error, DAMAGE) or (type(error) is OSError and error.errno is None)  # bz2's, pyarrow's
            if not damaged:  # of the disk or the network, not of the file
                place = f"{self.data_folder.resolve_paths(filepath)}, after line {line}"
                reason = getattr(error, "strerror", None) or str(error).strip()
                raise InheritError(f"{place}: {reason}. Mend that, and run the same command again.") from error
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
                for item, share in _rows(file, kind in PARQUET, self.text_key, size):
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
        yield line, "", _not_utf8(error)


def _lines(file: IO[bytes], text_key: str) -> Iterator[Item]:
    """Lines end in \\n only, so that a text's own characters stay as they are."""
    first = True
    for number, line in enumerate(file, start=1):
        if number == 1:
            _check_unicode(line)
        if not line.strip():
            continue
        record, problem = _parsed(line)
        if problem and first:
            _check_one_a_line(line, number)
        first = False
        yield number, *(("", problem) if problem else _text_of(record, text_key, number))


def _parsed(line: bytes) -> tuple[Any, str | None]:
    """A record, or what is wrong; with what Python's json module writes and orjson refuses: NaN, Infinity, a mark."""
    try:
        return orjson.loads(line), None
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(line.removeprefix(MARK).decode()), None
        except (ValueError, RecursionError) as other:
            return None, f"{'not UTF-8' if isinstance(other, UnicodeDecodeError) else 'broken JSON'} ({error})"


def _check_unicode(start: bytes) -> None:
    """Such a file would be one bad document, and all others in it lost."""
    zeros = [i for i, byte in enumerate(start[:4]) if not byte]
    if start[:2] in OTHER_UNICODE or zeros in ([1, 3], [0, 2], [1, 2, 3], [0, 1, 2]):
        raise InheritError("line 1: expected UTF-8, got UTF-16 or UTF-32. Convert it: iconv -f UTF-16 -t UTF-8 FILE.")


def _check_one_a_line(line: bytes, number: int) -> None:
    """A file of one JSON value over many lines would be as many broken ones."""
    start = line.removeprefix(MARK).strip()
    if start.startswith((b"[", b"{")) and start.endswith((b"[", b"{", b",")):
        raise InheritError(
            f"line {number}: expected one JSON object a line, got one value over several lines. Rewrite it: "
            "jq -c '.[]' FILE if it is an array, jq -c . FILE if it is objects."
        )


def _text_of(record: Any, text_key: str, number: int) -> tuple[str, str | None]:
    """The text and what is wrong with it."""
    if not isinstance(record, dict):
        found = type(record).__name__
    elif text_key not in record:
        found = f"the keys {sorted(record)}"
    elif (text := record[text_key]) is None:
        return "", None  # a blank document, as a null in a table is
    elif isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return "", f"broken JSON (half of a surrogate pair at character {error.start})"
        return text, None
    else:
        found = f'"{text_key}": {type(text).__name__}'
    raise InheritError(f'line {number}: expected an object with a string under "{text_key}", got {found}.')


def _rows(file: IO[bytes], is_parquet: bool, text_key: str, size: int) -> Iterator[tuple[Item, float]]:
    """The rows of a table, each with the share of the file that is read with it, 0 to 1; a null is a blank text.

    Args:
        file: The file, at its beginning.
        is_parquet: Parquet; else either of Arrow's formats.
        text_key: The column of the text.
        size: Of the file, in bytes.

    Raises:
        InheritError: there is no such column, or one that holds no text.
        EOFError: the file is damaged.
    """
    item: Item
    row, total = 0, 0
    try:
        if is_parquet:
            table = pyarrow.parquet.ParquetFile(file)
            schema, total = table.schema_arrow, table.metadata.num_rows
            if total:
                _check(schema, text_key)
            batches = table.iter_batches(BATCH_ROWS, columns=[text_key]) if total else ()
        else:
            schema, batches = _open_arrow(file)
        for batch in batches:
            _check(schema, text_key)
            place = file.tell() / max(size, 1)  # Arrow does not say how many rows there will be
            for value in _as_bytes(batch.column(text_key)):
                row += 1
                try:
                    item = row, (value or b"").decode(), None
                except UnicodeDecodeError as error:
                    item = row, "", _not_utf8(error)
                yield item, row / total if total else min(1.0, place)
    except pyarrow.ArrowException as error:
        raise EOFError(str(error)) from error


def _open_arrow(file: IO[bytes]) -> tuple[Any, Iterable[Any]]:
    """Arrow has a file format and a stream format; Hugging Face's `save_to_disk` writes the latter."""
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
    return reader.schema, map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader


def _check(schema: Any, text_key: str) -> None:
    if schema.get_field_index(text_key) < 0:
        raise InheritError(f'row 1: expected a column "{text_key}", got the columns {sorted(schema.names)}.')
    kind = schema.field(text_key).type
    value = kind.value_type if types.is_dictionary(kind) else kind
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(is_kind(value) for is_kind in (*texts, types.is_binary, types.is_large_binary, types.is_binary_view)):
        raise InheritError(
            f'row 1: expected text in the column "{text_key}", got {kind}. Choose a column of text with --text_key: '
            f"there are {', '.join(f'{field.name} ({field.type})' for field in schema)}."
        )


def _as_bytes(column: Any) -> list[bytes | None]:
    """Bytes, because Arrow does not see to it that its strings are UTF-8."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[bytes | None] = column.cast(pyarrow.large_binary()).to_pylist()
    return values


def _not_utf8(error: UnicodeDecodeError) -> str:
    """What to say of bytes that are no UTF-8."""
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start})"
