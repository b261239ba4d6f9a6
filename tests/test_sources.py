import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from inheritune_lit.commit import InheritError
from inheritune_lit.data.sources import TextFolderReader, list_files

# What only str.splitlines(), not a JSONL file, takes for the end of a line.
SEPARATORS = "next\x85line\u2028line\u2029paragraph\x0bvertical\x0cform\x1cfile"


def jsonl(*texts: str, newline: str = "\n") -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + newline for text in texts).encode()


def zst(*frames: bytes) -> bytes:
    return b"".join(zstandard.compress(frame) for frame in frames)


def read(folder: Path, rank: int = 0, world_size: int = 1) -> list[tuple[Any, str]]:
    reader = TextFolderReader(folder, list_files(folder))
    return [(document.id, document.text) for document in reader.run(rank=rank, world_size=world_size)]


def test_list_files_gives_domains_in_one_order(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/deep/y.txt", "top.txt.gz", ".hidden/z.txt", "a/.z.txt", "a/notes.md", "b/w.jsonl.zst"):
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text("four")
    found = [(file.path, file.size, file.domain) for file in list_files(tmp_path / "corpus")]
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
    with pytest.raises(InheritError, match=r"No documents under .*: expected files named \*\.txt, \*\.txt\.gz"):
        list_files(tmp_path)


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
    documents = read(tmp_path)
    assert [text for _, text in documents] == 2 * [f"document {i} " * 50 for i in range(300)]
    assert documents[300][0] == "b.jsonl.gz/1"


def test_every_task_has_its_files_whatever_came_later(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(str(i))
    reader = TextFolderReader(tmp_path, list_files(tmp_path))
    (tmp_path / "00.txt").write_text("late")
    dealt = [[document.text for document in reader.run(rank=rank, world_size=2)] for rank in range(2)]
    assert dealt == [["0", "2", "4"], ["1", "3"]]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.jsonl", jsonl("fine") + b'{"text": "cut', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", jsonl("fine") + b'{"text": "\xff"}\n', r"a\.jsonl, line 2: not valid JSON"),
        (
            "a.jsonl",
            jsonl("fine") + b'{"content": "", "id": 1}',
            r"line 2: .* string under .text., got the keys \['con",
        ),
        ("a.jsonl", b'{"text": 3}', r'line 1: .* got "text": int'),
        ("a.jsonl", b'\n\n["text"]', r"line 3: .* got list"),
        ("a.txt", b"fine\nfine\n caf\xe9", r"a\.txt, line 3: not UTF-8 \(byte 0xe9 at offset 14\)\. Convert"),
        ("a.jsonl.zst", zst(jsonl(*map(str, range(9))))[:-3], r"a\.jsonl\.zst, after line \d: the compressed file is"),
        ("a.jsonl.zst", zst(jsonl("1")) + zst(jsonl("2"))[:9], r"after line 1: the compressed file is cut short"),
        ("a.jsonl.zst", b"not zstandard", r"after line 0: the compressed file is cut short or damaged"),
        ("a.jsonl.gz", gzip.compress(jsonl("1", "2"))[:-9], r"a\.jsonl\.gz, after line \d: the compressed file is cut"),
        ("a.jsonl.gz", gzip.compress(jsonl("1"))[:15] + b"\xff" * 40, r"after line 0: the compressed file is cut sh"),
        ("a.txt.gz", b"not gzip", r"after line 0: the compressed file is cut short or damaged"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InheritError, match=problem):
        read(tmp_path)
