"""Where documents come from: a folder or a data set of text, JSONL, Parquet and Arrow files, each in a domain.

Unlike datatrove's own readers, which warn and go on, what can't be read is passed on with its file and line, for the
writer to report: a corpus with silent holes can't be reproduced.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import orjson
from datatrove.data import Document
from datatrove.io import DataFolder, get_datafolder
from datatrove.pipeline.readers import IpcReader, ParquetReader
from datatrove.pipeline.readers.base import BaseDiskReader

from inheritune_lit.commit import InheritError
from inheritune_lit.data.compression import COMPRESSIONS, DAMAGE, decompressed
from inheritune_lit.data.executor import advance

HUB = "hf://"
TABLES = (".parquet", ".arrow")
SUFFIXES = (*(kind + compression for kind in (".txt", ".jsonl") for compression in COMPRESSIONS), *TABLES)

# A document, or what is wrong with it: (line or row number, text, problem or None).
Item = tuple[int, str, str | None]


@dataclass(frozen=True)
class SourceFile:
    """A file of documents: its path relative to the input folder, its size in bytes, and the domain it belongs to."""

    path: str
    size: int
    domain: str


def pinned(input_dir: str | Path) -> tuple[str, str | None]:
    """The Hugging Face hub's URL at the commit that it means now, and that commit: a name there may mean another later.

    Anything else is returned as it is, without a commit.

    Raises:
        InheritError: the hub can't be reached, or has no such repository.
    """
    if not str(input_dir).startswith(HUB):
        return str(input_dir), None
    from huggingface_hub import HfApi, HfFileSystem

    hub = HfFileSystem()
    try:
        place = hub.resolve_path(str(input_dir))
        found = HfApi(endpoint=hub.endpoint).repo_info(
            place.repo_id, repo_type=place.repo_type, revision=place.revision
        )
    except OSError as error:  # all of huggingface_hub's and requests' are one
        raise InheritError(f"Can't find out which commit {input_dir} is at: {error}") from error
    commit = str(found.sha)
    return HUB + replace(place, revision=commit, _raw_revision=None).unresolve(), commit


def list_files(input_dir: str | Path, domains: Mapping[str, Sequence[str]] | None = None) -> list[SourceFile]:
    """The files of documents under a folder, sorted by path; hidden ones and other kinds are left out.

    Args:
        input_dir: A folder, or the URL of one, such as hf://datasets/OWNER/NAME.
        domains: The patterns of each domain's files; by default a top-level subfolder is a domain.

    Raises:
        InheritError: there is no such folder, nothing in it to read, a link to a folder, or a file matches no domain.
    """
    for domain in domains or {}:
        if Path(domain).name != domain or domain.startswith(".") or not domain:
            raise InheritError(f"{domain!r} is no name for a domain: it becomes a folder's, so no /, and no . first.")
    folder = get_datafolder(str(input_dir))
    if not folder.isdir(""):
        raise InheritError(f"{input_dir} is not a folder. Give a folder of {', '.join(SUFFIXES)} files.")
    own_name = Path(folder.path).resolve().name or "text"
    if str(input_dir).startswith(HUB):
        own_name = own_name.partition("@")[0]
    files = []
    for path, info in sorted(folder.find("", detail=True).items()):
        if any(part.startswith(".") for part in Path(path).parts):
            continue
        if info.get("islink") and not folder.isfile(path):  # fsspec follows links to files only
            what = "a folder, which is not followed" if folder.isdir(path) else "nothing that is there"
            raise InheritError(
                f"{input_dir}: {path} is a link to {what}: {info['destination']}. Mount or copy it there, or remove it."
            )
        if path.endswith(SUFFIXES):
            files.append(SourceFile(path, info["size"], _domain_of(path, own_name, domains)))
    if not files:
        raise InheritError(f"No documents under {input_dir}: expected files named *{', *'.join(SUFFIXES)}.")
    return files


def _domain_of(path: str, own_name: str, domains: Mapping[str, Sequence[str]] | None) -> str:
    if domains is None:
        parts = Path(path).parts
        return parts[0] if len(parts) > 1 else own_name
    for domain, patterns in domains.items():
        if any(fnmatchcase(path, pattern) for pattern in patterns):
            return domain
    raise InheritError(
        f"{path!r} matches the patterns of none of the domains {', '.join(domains)}. Move it or add one."
    )


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
        except DAMAGE as error:
            problem = f"damaged file: cut short or not what its name says, after line {line} ({error})"
            yield _document(filepath, line, "", problem)
        except InheritError as error:
            raise InheritError(f"{self.data_folder.resolve_paths(filepath)}, {error}") from error
        else:
            if line == 0:
                yield _document(filepath, 0, "", "empty file")

    def _items(self, filepath: str) -> Iterator[Item]:
        if filepath.endswith(TABLES):
            yield from self._rows(filepath)
            return
        is_text = filepath.endswith(tuple(".txt" + compression for compression in COMPRESSIONS))
        with self.data_folder.open(filepath, "rb") as raw, decompressed(raw, filepath) as file:
            for item in _whole(file) if is_text else _lines(file, self.text_key):
                self.position = raw.tell()
                yield item

    def _rows(self, filepath: str) -> Iterator[Item]:
        """The rows of a table by datatrove's readers, which would leave out those without a text."""
        import pyarrow.parquet

        options = {"text_key": self.text_key, "id_key": self.text_key, "adapter": _keep_empty}
        size, rows = self.data_folder.size(filepath), None
        try:
            if filepath.endswith(".parquet"):
                reader = ParquetReader(self.data_folder, read_metadata=False, **options)
                with self.data_folder.open(filepath, "rb") as file:
                    rows = pyarrow.parquet.read_metadata(file).num_rows
            else:
                reader = IpcReader(self.data_folder, stream=not _is_arrow_file(self.data_folder, filepath), **options)
            for row, document in enumerate(reader.read_file(filepath), start=1):
                # Arrow does not say how many rows there will be, but is not compressed: its text is its size
                self.position = size * row // rows if rows else min(size, self.position + len(document.text))
                yield row, document.text, None
        except pyarrow.ArrowInvalid as error:
            raise EOFError(str(error)) from error
        self.position = size


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
    try:
        yield 1, content.decode("utf-8-sig"), None  # a leading byte order mark is a signature, not text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield line, "", f"not UTF-8 (byte 0x{content[error.start]:02x} at offset {error.start})"


def _lines(file: IO[bytes], text_key: str) -> Iterator[Item]:
    """Lines end in \\n only, so that a text's own characters stay as they are."""
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, "", f"{'broken JSON' if _is_utf8(line) else 'not UTF-8'} ({error})"
            continue
        yield number, _text_of(record, text_key, number), None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text_of(record: Any, text_key: str, number: int) -> str:
    if isinstance(record, dict) and isinstance(text := record.get(text_key), str):
        return text
    found = f"the keys {sorted(record)}" if isinstance(record, dict) else type(record).__name__
    if isinstance(record, dict) and text_key in record:
        found = f'"{text_key}": {type(record[text_key]).__name__}'
    raise InheritError(f'line {number}: expected an object with a string under "{text_key}", got {found}.')


def _keep_empty(self: BaseDiskReader, data: dict[str, Any], path: str, id_in_file: int) -> dict[str, Any]:
    """datatrove's adapter of a row, but one without a text stays, as a blank document."""
    if self.text_key not in data:
        raise InheritError(
            f'row {id_in_file + 1}: expected a column "{self.text_key}", got the columns {sorted(data)}.'
        )
    return {"text": data[self.text_key] or " ", "id": f"{path}/{id_in_file}"}


def _is_arrow_file(folder: DataFolder, path: str) -> bool:
    """Arrow has a file format and a stream format; Hugging Face's `save_to_disk` writes the latter."""
    with folder.open(path, "rb") as file:
        return bool(file.read(6) == b"ARROW1")
