import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from datatrove.data import Document

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.encoding import open_tokenizer
from inheritune_lit.prepare.listing import list_files
from inheritune_lit.prepare.shards import ShardWriter, read_record
from inheritune_lit.prepare.sources import CorpusReader

# What only str.splitlines(), not a JSONL file, takes for the end of a line.
SEPARATORS = "next\x85line\u2028line\u2029paragraph\x0bvertical\x0cform\x1cfile"


def jsonl(*texts: str, newline: str = "\n") -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + newline for text in texts).encode()


def zst(*frames: bytes) -> bytes:
    return b"".join(zstandard.compress(frame) for frame in frames)


def documents(folder: Path, **options: Any) -> list[Document]:
    return list(CorpusReader(folder, list_files(folder).files, **options).run())


def read(folder: Path) -> list[tuple[Any, str]]:
    return [(document.id, document.text) for document in documents(folder)]


def test_list_files_gives_domains_in_one_order(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/deep/y.txt", "top.txt.gz", ".hidden/z.txt", "a/.z.txt", "a/notes.md", "b/w.jsonl.zst"):
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text("four")
    found = [(file.path, file.size, file.domain) for file in list_files(tmp_path / "corpus").files]
    assert found == [
        ("a/deep/y.txt", 4, "a"),
        ("b/w.jsonl.zst", 4, "b"),
        ("b/x.jsonl", 4, "b"),
        ("top.txt.gz", 4, "corpus"),
    ]


def test_no_folder_or_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(InheritError, match=r"nowhere is not a folder\. Give a folder of \.txt"):
        list_files(tmp_path / "nowhere")
    (tmp_path / "notes.md").touch()
    with pytest.raises(InheritError, match=r"No documents under .*: expected files named .txt, .text, .jsonl"):
        list_files(tmp_path)


def test_a_link_is_followed_or_refused(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for folder in (corpus / "web", elsewhere):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("words")
    (corpus / "web/b.txt").symlink_to(elsewhere / "a.txt")
    assert [file.path for file in list_files(corpus).files] == ["web/a.txt", "web/b.txt"]
    (corpus / "books").symlink_to(elsewhere)
    with pytest.raises(InheritError, match=f"books is a link to a folder, which is not followed: {elsewhere}"):
        list_files(corpus)
    (corpus / "books").unlink()
    (corpus / "web/b.txt").unlink()
    (corpus / "web/b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(InheritError, match=r"web/b.txt is a link to nothing that is there"):
        list_files(corpus)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_text_file_is_one_document(tmp_path: Path, name: str, mark: bytes) -> None:
    text = f"First\r\nsecond\n\n{SEPARATORS} étude 东京\n"
    data = mark + text.encode()
    packed = {".gz": gzip.compress, ".zst": zst}.get(Path(name).suffix, bytes)(data)
    (tmp_path / name).write_bytes(packed)
    assert read(tmp_path) == [(f"{name}/1", text)]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_lines_are_documents(tmp_path: Path, name: str, newline: str) -> None:
    data = jsonl("one\r\ntwo", SEPARATORS, newline=newline) + newline.encode() + jsonl("last").rstrip()
    packed = {".gz": gzip.compress, ".zst": zst}.get(Path(name).suffix, bytes)(data)
    (tmp_path / name).write_bytes(packed)
    assert read(tmp_path) == [(f"{name}/1", "one\r\ntwo"), (f"{name}/2", SEPARATORS), (f"{name}/4", "last")]


def test_all_frames_are_read_even_when_a_line_spans_two(tmp_path: Path) -> None:
    data = jsonl(*(f"document {i} " * 50 for i in range(300)))
    parts = [data[:1000], data[1000:1001], b"", data[1001:100_000], data[100_000:]]
    (tmp_path / "a.jsonl.zst").write_bytes(zst(*parts))
    (tmp_path / "b.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    found = read(tmp_path)
    assert [text for _, text in found] == 2 * [f"document {i} " * 50 for i in range(300)]
    assert found[300][0] == "b.jsonl.gz/1"


def test_every_task_has_its_files_whatever_came_later(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(str(i))
    reader = CorpusReader(tmp_path, list_files(tmp_path).files)
    (tmp_path / "00.txt").write_text("late")
    dealt = [[document.text for document in reader.run(rank=rank, world_size=2)] for rank in range(2)]
    assert dealt == [["0", "2", "4"], ["1", "3"]]


@pytest.mark.parametrize(
    ("name", "data", "line", "problem"),
    [
        ("a.jsonl", jsonl("fine") + b'{"text": "cut', 2, r"broken JSON \(unexpected end"),
        ("a.jsonl", jsonl("fine") + b'{"text": "\xff"}\n', 2, r"not UTF-8 \("),
        ("a.jsonl", jsonl("fine", " \n"), 2, r"blank document$"),
        ("a.jsonl", jsonl("fine", "a\0b"), 2, r"NUL character$"),
        ("a.jsonl", b"", 0, r"empty file$"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), 0, r"empty file$"),
        ("a.txt", b"", 0, r"empty file$"),
        ("a.txt", b" \n\t", 1, r"blank document$"),
        ("a.txt", b"a\n\0", 1, r"NUL character$"),
        ("a.txt", b"fine\nfine\n caf\xe9", 3, r"not UTF-8 \(byte 0xe9 at offset 14\)$"),
        ("a.jsonl.zst", zst(jsonl(*map(str, range(9))))[:-3], None, r"damaged file: cut short .* after line \d"),
        ("a.jsonl.zst", zst(jsonl("1")) + zst(jsonl("2"))[:9], 1, r"damaged file: cut short .* after line 1 \("),
        ("a.jsonl.zst", b"not zstandard", 0, r"damaged file: .* not what its name says, after line 0"),
        ("a.jsonl.gz", gzip.compress(jsonl("1", "2"), mtime=0)[:-9], None, r"damaged file: cut short"),
        ("a.jsonl.gz", gzip.compress(jsonl("1"), mtime=0)[:15] + b"\xff" * 40, 0, r"damaged file: cut short"),
        ("a.jsonl", jsonl("fine") + b'{"text": null}\n', 2, r"blank document$"),
        ("a.jsonl", jsonl("fine") + b'{"text": "\\ud83d"}\n', 2, r"broken JSON \(half of a surrogate pair"),
        ("a.txt.gz", b"not gzip", 0, r"damaged file: .* not what its name says"),
        ("a.parquet", b"not parquet", 0, r"damaged file: .* not what its name says"),
    ],
)
def test_what_cannot_be_used_is_passed_on_with_its_line(
    tmp_path: Path, name: str, data: bytes, line: int | None, problem: str
) -> None:
    (tmp_path / name).write_bytes(data)
    *good, bad = documents(tmp_path)
    assert all("problem" not in document.metadata for document in good)
    assert bad.metadata["file"] == name
    assert line is None or bad.metadata["line"] == line
    assert [document.text for document in good] == (["fine"] if b'"fine"' in data else [d.text for d in good])
    assert re.search(problem, bad.metadata["problem"]), bad.metadata


def test_reading_goes_on_behind_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl("one") + b"{\n" + jsonl("three", "", "five"))
    found = [(d.metadata["line"], d.text, d.metadata.get("problem", "")[:5]) for d in documents(tmp_path)]
    assert found == [(1, "one", ""), (2, "", "broke"), (3, "three", ""), (4, "", "blank"), (5, "five", "")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (jsonl("fine") + b'{"content": "", "id": 1}', r"a\.jsonl, line 2: .* string under .text., got the keys \['con"),
        (b'{"text": 3}', r'line 1: .* got "text": int'),
        (b'\n\n["text"]', r"line 3: .* got list"),
    ],
)
def test_the_wrong_kind_of_record_stops_at_once(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(InheritError, match=problem):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"score": NaN, "text": "a"}', "a"),
        (b'{"text": "a", "meta": {"x": [Infinity, -Infinity, NaN]}}', "a"),
        (b'\xef\xbb\xbf{"text": "a"}', "a"),
        (b'\xef\xbb\xbf{"text": "NaN is no number", "score": NaN}', "NaN is no number"),
        (b'{"text": "a", "broken": "\\ud83d"}', "a"),
    ],
)
def test_what_other_programs_write_as_json(tmp_path: Path, line: bytes, text: str) -> None:
    """NaN as Python's json writes it, a byte order mark at the beginning or where two files were joined."""
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([line, jsonl("one").strip(), line]))
    assert [document.text for document in documents(tmp_path)] == [text, "one", text]


UNICODE = r"a\.\w+, line 1: expected UTF-8, got UTF-16 or UTF-32\. Convert it: iconv"
ARRAY = r"a\.json, line 1: expected one JSON object a line, got one value over several lines"


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        *((name, jsonl("one", "two").decode().encode(code), UNICODE)
          for name in ("a.jsonl", "a.txt") for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")),
        ("a.json", json.dumps([{"text": "one"}, {"text": "two"}], indent=2).encode(), ARRAY),
        ("a.json", json.dumps({"data": [{"text": "one"}]}, indent=1).encode(), ARRAY),
        ("a.json", b'[{"text": "one"},\n{"text": "two"}]', ARRAY),
        ("a.json", b'[{"text": "one"}, {"text": "two"}]', r"line 1: expected an object .*, got list"),
    ],
)  # fmt: skip
def test_the_wrong_kind_of_file_is_named(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InheritError, match=problem):
        read(tmp_path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "Input/output error"), "Input/output error"), (ConnectionError("404, gone"), "404, gone")],
)
def test_a_disk_or_hub_that_fails_is_no_damaged_file(
    error: OSError, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    class Failing(io.BytesIO):
        def readline(self, *_: Any) -> bytes:
            raise error

    (tmp_path / "a.jsonl").write_bytes(jsonl("one"))
    reader = CorpusReader(tmp_path, list_files(tmp_path).files)
    monkeypatch.setattr(reader.data_folder, "open", lambda *_: Failing())
    monkeypatch.setattr(Failing, "__next__", Failing.readline, raising=False)
    with pytest.raises(InheritError, match=rf"a\.jsonl, after line 0: {reason}\. Mend that"):
        list(reader.run())


def test_another_key(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"content": "x", "text": "y"}\n')
    assert [document.text for document in documents(tmp_path, text_key="content")] == ["x"]


TABLE = {"id": [7, 8, 9, 10], "text": ["one", SEPARATORS, None, ""], "score": [0.1, 0.2, 0.3, 0.4]}


def write_stream(table: pyarrow.Table, path: Path) -> None:
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def write_file(table: pyarrow.Table, path: Path) -> None:
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.parquet", pyarrow.parquet.write_table), ("a.arrow", write_stream), ("a.arrow", write_file)],
)
def test_rows_of_tables(tmp_path: Path, name: str, write: Callable[[pyarrow.Table, Path], None]) -> None:
    write(pyarrow.table(TABLE), tmp_path / name)
    found = [(d.metadata["line"], d.text, d.metadata.get("problem")) for d in documents(tmp_path)]
    assert found[:2] == [(1, "one", None), (2, SEPARATORS, None)]
    assert [(line, problem) for line, _, problem in found[2:]] == [(3, "blank document"), (4, "blank document")]
    with pytest.raises(InheritError, match=rf'{name}, row 1: expected a column "content", got the columns'):
        documents(tmp_path, text_key="content")


WORDS = ["one", "étude", "three"]
COLUMNS = {
    "string": pyarrow.array(WORDS),
    "large_string": pyarrow.array(WORDS, pyarrow.large_string()),
    "string_view": pyarrow.array(WORDS, pyarrow.string_view()),
    "binary": pyarrow.array([word.encode() for word in WORDS]),
    "large_binary": pyarrow.array([word.encode() for word in WORDS], pyarrow.large_binary()),
    "dictionary": pyarrow.array(WORDS).dictionary_encode(),
    "invalid": pyarrow.Array.from_buffers(pyarrow.string(), 3, pyarrow.array([b"one", b"\xe9", b"three"]).buffers()),
    "bytes": pyarrow.array([b"one", b"\xe9", b"three"]),
    "list": pyarrow.array([["one"], ["two"]]),
    "struct": pyarrow.array([{"en": "one"}]),
    "int": pyarrow.array([1]),
    "double": pyarrow.array([1.5, float("nan")]),
    "bool": pyarrow.array([True]),
    "timestamp": pyarrow.array([0], pyarrow.timestamp("s")),
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    ("name", "write"),
    [("a.PARQUET", pyarrow.parquet.write_table), ("a.arrow", write_stream), ("a.feather", write_file)],
)
def test_columns_of_any_type(
    tmp_path: Path, name: str, write: Callable[[pyarrow.Table, Path], None], column: str
) -> None:
    write(pyarrow.table({"n": range(len(COLUMNS[column])), "text": COLUMNS[column]}), tmp_path / name)
    if column in list(COLUMNS)[:6]:
        assert [document.text for document in documents(tmp_path)] == WORDS
    elif column in ("invalid", "bytes"):
        found = [(d.metadata["line"], d.text, d.metadata.get("problem")) for d in documents(tmp_path)]
        assert found == [(1, "one", None), (2, "", "not UTF-8 (byte 0xe9 at offset 0)"), (3, "three", None)]
    else:
        with pytest.raises(InheritError, match=rf"{name}, row 1: expected text in the column .text., got {column[:3]}"):
            documents(tmp_path)


@pytest.mark.parametrize("write", [pyarrow.parquet.write_table, write_stream, write_file])
def test_a_table_without_rows_is_an_empty_file(tmp_path: Path, write: Callable[[pyarrow.Table, Path], None]) -> None:
    name = "a.parquet" if write is pyarrow.parquet.write_table else "a.arrow"
    write(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / name)
    (tmp_path / f"b{name}").touch()
    assert [document.metadata["problem"] for document in documents(tmp_path)] == 2 * ["empty file"]


def test_a_data_set_saved_by_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": [f"document {i}" for i in range(25)]})
    data.save_to_disk(str(tmp_path / "arrow"), num_shards=3)
    data.to_parquet(str(tmp_path / "parquet/a.parquet"))
    for folder in ("arrow", "parquet"):
        assert [text for _, text in read(tmp_path / folder)] == [f"document {i}" for i in range(25)]


def test_a_url_is_read_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.jsonl").write_bytes(jsonl("one"))
    url = f"file://{tmp_path}"
    assert list_files(url) == list_files(tmp_path)
    assert [document.text for document in CorpusReader(url, list_files(url).files).run()] == ["one"]


def test_another_file_system(bpe: Path, tmp_path: Path) -> None:
    """What hf:// needs: files are listed and read by the file system's own means, and their hashes are its own too."""
    import fsspec

    fsspec.filesystem("memory").pipe("/hub/web/a.jsonl", jsonl("one"))
    files = list_files("memory://hub").files
    assert [(file.path, file.domain) for file in files] == [("web/a.jsonl", "web")]
    encoder, split = open_tokenizer(bpe)[0], {"seed": 1, "val_share": 0.0}
    writer = ShardWriter(tmp_path, tmp_path / "records", "memory://hub", files, encoder, split)
    writer.run(CorpusReader("memory://hub", files).run())
    record = read_record(tmp_path / "records", 0)
    assert record["files"] == [{"path": "web/a.jsonl", "size": files[0].size, "sha256": None}]
    assert record["documents"] == 1


def test_domains_by_patterns(tmp_path: Path) -> None:
    for name in ("cc_2019-30_sample.jsonl", "cc_2023-06_sample.jsonl", "book_sample.jsonl", "common_crawl/x/a.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = {"common_crawl": ["common_crawl/*", "cc_*_sample.jsonl"], "book": ["book/*", "book_sample.jsonl"]}
    assert [file.domain for file in list_files(tmp_path, patterns).files] == ["book", *3 * ["common_crawl"]]
    with pytest.raises(InheritError, match=r"'cc_2019-30_sample\.jsonl' matches the patterns of none of the domains b"):
        list_files(tmp_path, {"book": ["book*"]})
