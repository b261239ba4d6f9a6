"""Documents out of the rows of Parquet and Arrow files."""

from collections.abc import Iterator
from typing import IO, Any

from inheritune_lit.base.errors import InheritError

# A document, or what is wrong with it: (line or row number, text, problem or None).
Item = tuple[int, str, str | None]

BATCH_ROWS = 1000


def rows(file: IO[bytes], is_parquet: bool, text_key: str, size: int) -> Iterator[tuple[Item, float]]:
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
    import pyarrow

    row, total = 0, None
    try:
        if is_parquet:
            import pyarrow.parquet

            table = pyarrow.parquet.ParquetFile(file)
            schema, total = table.schema_arrow, table.metadata.num_rows
            _check(schema, text_key, bool(total))
            batches = table.iter_batches(BATCH_ROWS, columns=[text_key]) if total else ()
        else:
            reader = _open_arrow(file)
            schema, batches = reader.schema, _batches(reader)
        for batch in batches:
            _check(schema, text_key, True)
            # Arrow does not say how many rows there will be, but it says where the file is read
            read = total or row + batch.num_rows
            start = file.tell()
            for value in _as_bytes(batch.column(text_key)):
                row += 1
                yield _item(row, value), row / read if total else min(1.0, start / max(size, 1))
    except pyarrow.ArrowException as error:
        raise EOFError(str(error)) from error


def _open_arrow(file: IO[bytes]) -> Any:
    """Arrow has a file format and a stream format; Hugging Face's `save_to_disk` writes the latter."""
    import pyarrow

    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    return pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)


def _batches(reader: Any) -> Iterator[Any]:
    if not hasattr(reader, "num_record_batches"):
        yield from reader
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _check(schema: Any, text_key: str, has_rows: bool) -> None:
    from pyarrow import types

    if schema.get_field_index(text_key) < 0:
        if has_rows:
            raise InheritError(f'row 1: expected a column "{text_key}", got the columns {sorted(schema.names)}.')
        return
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
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[bytes | None] = column.cast(pyarrow.large_binary()).to_pylist()
    return values


def _item(row: int, value: bytes | None) -> Item:
    try:
        return row, (value or b"").decode(), None
    except UnicodeDecodeError as error:
        return row, "", f"not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start})"
