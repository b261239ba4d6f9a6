import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.manifest import Manifest, plan_of

Change = Callable[[dict[str, Any]], None]


def shard(path: str, tokens: int) -> dict[str, Any]:
    return {"path": path, "tokens": tokens, "documents": 1, "sha256": f"hash of {tokens}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two training domains, the first with two shards, and one validation shard; 2 bytes a token."""
    shards = {"a/train/00000.ds": 3, "a/train/00001.ds": 4, "b/train/00001.ds": 5, "a/val/00000.ds": 6}
    for path, tokens in shards.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes(2 * tokens))

    def entry(domain: str, split: str) -> dict[str, Any]:
        mine = [shard(path, n) for path, n in shards.items() if path.startswith(f"{domain}/{split}/")]
        tokens = sum(s["tokens"] for s in mine)
        return {"domain": domain, "tokens": tokens, "documents": len(mine), "max_token_id": tokens, "shards": mine}

    content = {
        "format": 1,
        "dtype": "uint16",
        "tokenizer": {"identity": "x", "vocab_size": 20},
        "seed": 42,
        "source": {"files": [{"path": "a.txt", "size": 7, "sha256": "y"}]},
        "splits": {"train": [entry("a", "train"), entry("b", "train")], "val": [entry("a", "val")]},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    return tmp_path


def change(folder: Path, edit: Change) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_reads_back(folder: Path) -> None:
    manifest = Manifest(folder)
    manifest.check_files()
    train, val = manifest.splits["train"], manifest.splits["val"]
    paths = [shard.path for shard in train.shards]
    assert paths == ["a/train/00000.ds", "a/train/00001.ds", "b/train/00001.ds"]
    assert (train.tokens, train.documents, train.max_token_id) == (12, 3, 7)
    assert (val.tokens, val.documents, val.max_token_id) == (6, 1, 6)
    assert (manifest.dtype, manifest.tokenizer["vocab_size"]) == ("uint16", 20)


def test_stream_hash_is_of_the_content_in_order(folder: Path) -> None:
    before = Manifest(folder).splits["train"].sha256
    change(folder, lambda m: m["splits"]["train"][0]["shards"][0].update(path="elsewhere/x.ds"))
    assert Manifest(folder).splits["train"].sha256 == before
    change(folder, lambda m: m["splits"]["train"].reverse())
    assert Manifest(folder).splits["train"].sha256 != before


def test_a_name_that_no_file_can_have(folder: Path) -> None:
    change(folder, first_shard(path="0" * 5000))
    with pytest.raises(InheritError, match=r"000 is missing, the manifest expects"):
        Manifest(folder).check_files()


def first_shard(**values: Any) -> Change:
    return lambda m: m["splits"]["train"][0]["shards"][0].update(values)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (first_shard(path="../a/train/00000.ds"), r"damaged: ValueError the path '\.\./a/.*leaves the folder"),
        (first_shard(path="a/../../00000.ds"), r"leaves the folder"),
        (first_shard(path="/etc/passwd"), r"leaves the folder"),
        (first_shard(path=""), r"leaves the folder"),
        (first_shard(path=7), r"damaged: ValueError path 7, expected text"),
        (first_shard(tokens=4), r"damaged: ValueError the shards of a do not add up to its tokens"),
        (first_shard(tokens=-3), r"damaged: ValueError tokens -3, expected a whole number"),
        (first_shard(tokens="3"), r"damaged: ValueError tokens '3', expected a whole number"),
        (lambda m: m["splits"]["train"][0]["shards"][0].pop("sha256"), r"damaged: KeyError 'sha256'"),
        (lambda m: m["splits"].pop("val"), r"damaged: KeyError 'val'\. Prepare the data again"),
        (lambda m: m["tokenizer"].pop("identity"), r"damaged: KeyError 'identity'"),
        (lambda m: m.update(splits=[]), r"damaged: AttributeError"),
        (lambda m: m.update(format=2), r"has format 2, this version reads 1"),
        (lambda m: m.pop("format"), r"has format None, this version reads 1"),
        (lambda m: m.update(dtype="float32"), r"dtype 'float32', expected uint16 or uint32"),
    ],
)
def test_tampered_manifest_is_refused(folder: Path, edit: Change, problem: str) -> None:
    change(folder, edit)
    with pytest.raises(InheritError, match=problem):
        Manifest(folder)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InheritError, match=r"holds no token shards: there is no .*manifest\.json"):
        Manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InheritError, match="Can't read the manifest"):
        Manifest(tmp_path)


def test_shards_of_another_size_are_named(folder: Path) -> None:
    (folder / "b/train/00001.ds").write_bytes(bytes(9))
    with pytest.raises(InheritError, match=r"b/train/00001\.ds has 9 bytes, the manifest expects 10 bytes \(5 tokens"):
        Manifest(folder).check_files()
    Manifest(folder).check_files(splits=("val",))
    (folder / "a/val/00000.ds").unlink()
    with pytest.raises(InheritError, match=r"a/val/00000\.ds is missing, the manifest expects 12 bytes"):
        Manifest(folder).check_files(splits=("val",))
    change(folder, lambda m: m.update(dtype="uint32"))
    with pytest.raises(InheritError, match=r"has 6 bytes, the manifest expects 12 bytes \(3 tokens of uint32\)"):
        Manifest(folder).check_files()


def test_differences_name_what_changed(folder: Path) -> None:
    before = plan_of(json.loads((folder / "manifest.json").read_text()))
    assert differences(before, before) == []
    now = before | {"seed": 43, "files": {"b.txt": 7}}
    assert differences(before, now) == [
        "files.a.txt: 7 before, absent now",
        "files.b.txt: absent before, 7 now",
        "seed: 42 before, 43 now",
    ]
