"""Every file of an input folder is read, or left out with a reason; files that are named as splits are not mixed."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from helpers.texts import bytes_of, documents_of, jsonl, run

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.prepare.listing import list_files
from inheritune_lit.prepare.sources import CorpusReader

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
    ".lz4": lambda data: bytes(pyarrow.compress(data, "lz4", asbytes=True)),
}
KINDS = (".jsonl", ".json", ".ndjson", ".JSONL", ".Json", ".txt", ".TXT", ".text")


def make(folder: Path, *names: str, data: bytes = b'{"text": "a"}\n') -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("compression", COMPRESS)
def test_text_under_any_usual_name_is_read(tmp_path: Path, compression: str) -> None:
    data = COMPRESS[compression](jsonl(["one", "two"]))
    for suffix in (compression, compression.upper()):
        for kind in KINDS:
            make(tmp_path, f"part{kind}{suffix}", data=data)
    files = list_files(tmp_path)
    assert files.left_out == []
    found = [(Path(d.metadata["file"]).suffixes[0].lower(), d.text) for d in CorpusReader(tmp_path, files.files).run()]
    whole = jsonl(["one", "two"]).decode()
    assert {kind for kind, _ in found} == {kind.lower() for kind in KINDS}
    for kind in {kind for kind, _ in found}:
        texts = [text for k, text in found if k == kind]
        assert set(texts) == ({whole} if kind in (".txt", ".text") else {"one", "two"})


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst", ".lz4"])
def test_cut_short_is_no_end(tmp_path: Path, compression: str) -> None:
    make(tmp_path, f"a.jsonl{compression}", data=COMPRESS[compression](jsonl([f"{i}" * 50 for i in range(999)]))[:-20])
    make(tmp_path, f"b.jsonl{compression}", data=b"something else")
    *_, cut, other = CorpusReader(tmp_path, list_files(tmp_path).files).run()
    assert cut.metadata["file"].startswith("a")
    assert all("damaged file" in document.metadata["problem"] for document in (cut, other))


def test_a_window_of_zstandard_above_its_readers_limit(tmp_path: Path) -> None:
    """`zstd --long=31` writes such a frame header for any text of more than 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(jsonl(["one", "two"])) + compressor.flush()
    assert zstandard.get_frame_parameters(data).window_size > 2**27
    make(tmp_path, "a.jsonl.zst", data=data)
    assert [d.text for d in CorpusReader(tmp_path, list_files(tmp_path).files).run()] == ["one", "two"]


REASONS = {
    ".hidden/a.jsonl": "hidden",
    "web/.part-0.jsonl.crc": "hidden",
    "README.md": "about the data",
    "web/README.txt": "about the data",
    "LICENSE": "about the data",
    "web/_SUCCESS": "about the data",
    "web/_committed_12": "about the data",
    "dataset_info.json": "about the data",
    "web/_temporary/0/a.jsonl": "about the data",
    "web/logo.PNG": "not text",
    "web/a.jsonl.zip": "another kind, .zip",
    "web/a.csv.gz": "another kind, .csv.gz",
    "web/part-00000": "another kind, no suffix",
    "web/a.parquet.gz": "a table compressed as a whole, .parquet.gz",
    "web/cache-0123456789abcdef.arrow": "a cache of Hugging Face's datasets",
}


def test_every_file_is_accounted_for(tmp_path: Path, bpe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the dry run, the output and the manifest: read, empty, or left out and why."""
    make(tmp_path / "in", *REASONS)
    make(tmp_path / "in", "web/a.jsonl", data=jsonl([f"text {i}" for i in range(40)]))
    make(tmp_path / "in", "web/b.jsonl", "web/c.txt", data=b"")
    run(tmp_path / "in", tmp_path / "out", bpe, dry_run=True)
    shown = capsys.readouterr().out
    content = Manifest(run(tmp_path / "in", tmp_path / "out", bpe)).content
    assert {entry["path"]: entry["why"] for entry in content["source"]["left_out"]} == REASONS
    assert [(f["path"], f.get("empty", False)) for f in content["source"]["files"]] == [
        *(("web/a.jsonl", False), ("web/b.jsonl", True), ("web/c.txt", True))
    ]
    accounted = [*content["source"]["files"], *content["source"]["left_out"]]
    on_disk = {
        str(p.relative_to(tmp_path / "in")): p.stat().st_size for p in (tmp_path / "in").rglob("*") if p.is_file()
    }
    assert {entry["path"]: entry["size"] for entry in accounted} == on_disk
    for output in (shown, capsys.readouterr().out):
        assert "eft out: 2 files, 28 bytes: hidden (.hidden/a.jsonl, …)" in output
        assert "eft out: 1 file, 14 bytes: another kind, .zip (web/a.jsonl.zip)" in output
    assert content["quarantine"] == {}


@pytest.mark.parametrize("name", ["c4/a.jsonl.zip", "c4/part-00000", "c4/x/a.csv", "c4/a.parquet.gz"])
def test_a_domain_that_would_vanish_is_an_error(tmp_path: Path, name: str) -> None:
    make(tmp_path, "books/a.jsonl", name)
    with pytest.raises(InheritError, match=r"Nothing of the domain 'c4' .*\n  1 file, 14 bytes: a") as error:
        list_files(tmp_path)
    assert name in str(error.value)
    with pytest.raises(InheritError, match="Nothing of the domain 'web'"):
        list_files(tmp_path, {"books": ["books/*"], "web": ["c4/*"]})
    assert len(list_files(tmp_path, {"books": ["books/*"]}).left_out) == 1  # what no domain asks for


def test_a_domain_without_documents_is_an_error(tmp_path: Path, bpe: Path) -> None:
    make(tmp_path / "in", "web/a.jsonl", data=jsonl([f"text {i}" for i in range(40)]))
    make(tmp_path / "in", "books/a.jsonl", data=b"")
    with pytest.raises(InheritError, match="Nothing is left of the domain books: all its files are empty"):
        run(tmp_path / "in", tmp_path / "out", bpe)
    with pytest.raises(InheritError, match=r"No file matches the patterns of the domain c4\."):
        run(tmp_path / "in", tmp_path / "other", bpe, domains={"web": ["*"], "c4": ["c4/*"]})


SPLITS = [
    ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    ("train.jsonl", "dev.jsonl", "test.jsonl"),
    ("train/a.jsonl", "valid/a.jsonl", "test/a.jsonl"),
    ("c4-train.00000-of-00009.json.gz", "c4-validation.00000-of-00002.json.gz", "x_test.json"),
    ("en/Train/a.jsonl", "en/Validation/a.jsonl", "en/TEST/a.jsonl"),
    ("TinyStories-train.txt", "TinyStories-valid.txt", "TinyStories-test.txt"),
    ("a.jsonl", "val_0.jsonl", "testing.jsonl"),
    ("openwebtext.jsonl", "eval/a.jsonl", "wiki-test.ndjson"),
    ("corpus.txt", "val.txt", "test1.txt"),
]


@pytest.mark.parametrize("names", SPLITS)
def test_files_that_are_named_as_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    from inheritune_lit.prepare.settings import PrepareSettings, hold_out

    make(tmp_path, *names)

    def held(splits: Any, val_glob: str | None = None) -> tuple[dict[str, bool], list[str]]:
        listing = list_files(tmp_path, None, splits)
        options: dict[str, Any] = {"val_glob": val_glob, "named_splits": splits, "val_share": 0.1}
        files = hold_out(listing, PrepareSettings("in", out_dir=tmp_path, tokenizer_dir=tmp_path, **options))
        return {file.path: file.held_out for file in files}, [f"{file.path}: {file.why}" for file in listing.left_out]

    train, val, test = names
    with pytest.raises(InheritError, match=r"2 of 3 files are named as validation or test splits: .*--named_splits"):
        held(None)
    assert held("hold_out") == ({train: False, val: True}, [f"{test}: named as a test split"])
    left_out = [f"{name}: named as a {what} split" for name, what in sorted([(val, "validation"), (test, "test")])]
    assert held("leave_out") == ({train: False}, left_out)
    assert held("mix") == (dict.fromkeys(names, False), [])
    with pytest.raises(InheritError, match=r"1 of 3 files are named as .*test"):
        held(None, val)  # held out as a whole: only the other one is trained on
    (tmp_path / test).unlink()
    assert held(None, val)[0] == {train: False, val: True}


@pytest.mark.parametrize(
    "name", ["the-test-of-time.txt", "contest.jsonl", "tests/a.jsonl", "devotion.txt", "latest-00.jsonl", "evals.txt"]
)
def test_other_names_are_no_splits(tmp_path: Path, name: str) -> None:
    from inheritune_lit.prepare.settings import PrepareSettings, hold_out

    make(tmp_path, "a.jsonl", name)
    settings = PrepareSettings("in", out_dir=tmp_path, tokenizer_dir=tmp_path)
    assert len(hold_out(list_files(tmp_path), settings)) == 2


def test_a_splits_folder_is_no_domain(tmp_path: Path) -> None:
    make(tmp_path / "wiki", "train/en/a.jsonl", "train/b.jsonl", "de/train/c.jsonl", "test/d.jsonl")
    assert [file.domain for file in list_files(tmp_path / "wiki", None, "leave_out").files] == ["de", "wiki", "en"]
    assert {file.domain for file in list_files(tmp_path / "wiki", None, "mix").files} == {"de", "train", "test"}


def test_validation_files_become_the_validation_split(tmp_path: Path, bpe: Path) -> None:
    for i, name in enumerate(("train", "validation", "test")):
        make(tmp_path / "in", f"data/{name}-0.jsonl", data=jsonl([f"text {i}" * 9] * (i + 3)))
    out = run(tmp_path / "in", tmp_path / "out", bpe, val_share=0, named_splits="hold_out")
    assert {place: len(found) for place, found in documents_of(out).items()} == {
        ("data", "train"): 3,
        ("data", "val"): 4,
    }
    assert "--named_splits=hold_out" in Manifest(out).content["command"]


def test_what_state_json_lists_is_read(tmp_path: Path) -> None:
    """`load_from_disk(…).map` and others leave caches beside the data, under names of their own."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(str(tmp_path / "ds"))
    (data,) = (tmp_path / "ds").glob("*.arrow")
    for name in ("cache-0123456789abcdef.arrow", "cache-0123456789abcdef_00000_of_00002.arrow", "tmpx8d7s6d5.arrow"):
        (tmp_path / "ds" / name).write_bytes(data.read_bytes())
    listing = list_files(tmp_path)
    assert [file.path for file in listing.files] == [f"ds/{data.name}"]
    assert sorted({file.why for file in listing.left_out}) == ["about the data", "not listed in state.json"]
    data.unlink()
    with pytest.raises(InheritError, match=rf"ds/state\.json lists ds/{data.name}, which is not there"):
        list_files(tmp_path)


def test_names_that_are_not_utf8(tmp_path: Path, bpe: Path) -> None:
    """They come back from the manifest as they are, and the same command knows that it is done."""
    name = b"caf\xe9.jsonl".decode(errors="surrogateescape")
    make(tmp_path / "in", name, f"{name}.csv", "b.jsonl", data=jsonl([*(f"text {i}" for i in range(40)), " "]))
    out = run(tmp_path / "in", tmp_path / "out", bpe)
    before = bytes_of(out)
    run(tmp_path / "in", tmp_path / "out", bpe)
    assert bytes_of(out) == before
    content = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert [file["path"] for file in content["source"]["files"]] == ["b.jsonl", name]
    assert [file["path"] for file in content["source"]["left_out"]] == [f"{name}.csv"]
    listed = [json.loads(line)["file"] for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert listed == ["b.jsonl", name]
