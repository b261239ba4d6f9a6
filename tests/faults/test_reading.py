"""Disks and networks that fail while something is read, in the middle of a file; a Hugging Face cache of links."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.faults import Fault
from helpers.models import make_checkpoint, write_bpe

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.weights import Unreadable
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.prepare.command import prepare
from inheritune_lit.pretrain import resume
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

FAULTS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """`with broken(file, share, number):` the file can be opened, and not be read behind so much of it."""
    real = io.open

    @contextmanager
    def install(place: Path, share: float, number: int) -> Iterator[None]:
        end = int(place.stat().st_size * share)

        class Broken(io.FileIO):
            def readinto(self, buffer: Any) -> int:
                if self.tell() + len(memoryview(buffer)) > end:
                    raise OSError(number, os.strerror(number))
                return super().readinto(buffer)

            def readall(self) -> bytes:
                raise OSError(number, os.strerror(number))

        def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
            if isinstance(file, str | Path) and Path(file) == place and "r" in mode:
                if buffering == 0:
                    return Broken(file)
                binary = io.BufferedReader(Broken(file), 512)
                return binary if "b" in mode else io.TextIOWrapper(binary, encoding="utf-8")
            return real(file, mode, buffering, *more, **options)

        with monkeypatch.context() as patch:
            patch.setattr(io, "open", opened)
            yield

    return install


@pytest.mark.parametrize("share", [0.4, 0.99])
@pytest.mark.parametrize("number", FAULTS)
def test_checkpoint(number: int, share: float, tmp_path: Path, fault: Fault, broken: Any) -> None:
    """One line that names it; not called torn or corrupt, and nothing is written."""
    source = make_checkpoint(tmp_path / "source")
    surgery(source, layers="2", out_dir=tmp_path / "target")
    with fault(source, tmp_path / "target"), broken(source / "lit_model.pth", share, number):
        for command in (
            ["surgery", str(source), "--layers=3", "--overwrite", "--out_dir", str(tmp_path / "target")],
            ["verify", str(tmp_path / "target"), "--source", str(source)],
        ):
            with pytest.raises(SystemExit) as info:
                main(command)
            assert f"{source / 'lit_model.pth'}: {os.strerror(number)}" in str(info.value.code)
        with pytest.raises(Unreadable, match=os.strerror(number)):
            load_model(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.parametrize("number", FAULTS)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_checkpoint_to_resume_from(share: float, number: int, tmp_path: Path, fault: Fault, broken: Any) -> None:
    """Never set aside, nor is an older one taken in its place: an error that says to try again."""
    for step in (1, 2):
        make_checkpoint(tmp_path / f"run/step-{step:08d}", n_layer=2)
    newest = tmp_path / "run/step-00000002/lit_model.pth"
    with (
        fault(tmp_path / "run"),
        broken(newest, share, number),
        pytest.raises(Unreadable, match=f"Can't read {newest}: {os.strerror(number)}"),
    ):
        resume.newest(tmp_path / "run", None, {"global_batch_size": 4}, 8)  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("number", FAULTS)
def test_receipt_configuration_and_tokenizer(number: int, tmp_path: Path, fault: Fault, broken: Any) -> None:
    source = make_checkpoint(tmp_path / "source")
    surgery(source, layers="2", out_dir=tmp_path / "target")
    for name in ("inheritance.json", "model_config.yaml", "tokenizer.json"):
        bad = broken(tmp_path / "target" / name, 0.5, number)
        with fault(source, tmp_path / "target"), bad, pytest.raises(SystemExit) as info:
            main(["verify", str(tmp_path / "target")])
        assert str(tmp_path / "target" / name) in str(info.value.code)
        assert os.strerror(number) in str(info.value.code)


def test_shard_and_manifest(tmp_path: Path, broken: Any) -> None:
    for name in ("shard.ds", "manifest.json"):
        (tmp_path / name).write_bytes(bytes(2000))
    with broken(tmp_path / "shard.ds", 0.5, errno.EIO), pytest.raises(OSError, match="Input/output error") as info:
        sha256_file(tmp_path / "shard.ds")
    assert info.value.filename == str(tmp_path / "shard.ds")
    bad = broken(tmp_path / "manifest.json", 0.5, errno.EIO)
    with bad, pytest.raises(InheritError, match=r"manifest\.json: \[Errno 5\] Input/output error"):
        Manifest(tmp_path)


def as_cache(folder: Path, cache: Path) -> Path:
    """A folder's files as Hugging Face's cache has them: links below snapshots/ into blobs/."""
    snapshot = cache / "snapshots/0123abcd"
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        link, blob = snapshot / file.relative_to(folder), cache / "blobs" / f"{abs(hash(file))}"
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def test_cache_of_links(llama: Path, tmp_path: Path, fault: Fault) -> None:
    """As reference, tokenizer and text: the same as the files; what is written holds no link."""
    source = as_cache(llama, tmp_path / "models--org--llama")
    tokenizer = as_cache(write_bpe(tmp_path / "bpe"), tmp_path / "models--org--bpe")
    (tmp_path / "text/train").mkdir(parents=True)
    for i in range(9):
        (tmp_path / f"text/train/{i}.txt").write_text(f"{i} Wherefore art thou Romeo?")
    text = as_cache(tmp_path / "text", tmp_path / "datasets--org--text")
    with fault(*tmp_path.glob("*--*")):
        for place, name in ((source, "linked"), (llama, "plain")):
            surgery(place, layers="2", out_dir=tmp_path / name)
            verify(tmp_path / name, source=place)
        for place, words, name in ((tokenizer, text, "tokens"), (tmp_path / "bpe", tmp_path / "text", "others")):
            prepare(str(words), out_dir=tmp_path / name, tokenizer_dir=place, val_share=0.3, domains={"t": ["*"]})
    assert sha256_file(tmp_path / "linked/lit_model.pth") == sha256_file(tmp_path / "plain/lit_model.pth")
    shards = [sorted(map(sha256_file, (tmp_path / name).rglob("*.ds"))) for name in ("tokens", "others")]
    assert shards[0] == shards[1]
    assert not [path for name in ("linked", "tokens") for path in (tmp_path / name).rglob("*") if path.is_symlink()]


def test_cache_whose_links_lead_nowhere(llama: Path, tmp_path: Path, fault: Fault) -> None:
    """A download that was cut, or a blob that was cleaned up: named, nothing is written."""
    source = as_cache(llama, tmp_path / "models--org--llama")
    (blob := (source / "lit_model.pth").resolve()).rename(blob.with_name(f"{blob.name}.incomplete"))
    with fault(llama), pytest.raises(InheritError, match=r"lit_model\.pth is missing"):
        surgery(source, layers="2", out_dir=tmp_path / "target")
    tokenizer = write_bpe(tmp_path / "bpe")
    (tmp_path / "text").mkdir()
    for i in range(9):
        (tmp_path / f"text/{i}.txt").write_text(f"{i} Wherefore art thou Romeo?")
    text = as_cache(tmp_path / "text", tmp_path / "datasets--org--text")
    (text / "4.txt").resolve().unlink()
    with fault(tokenizer), pytest.raises(InheritError, match=r"4\.txt"):
        prepare(str(text), out_dir=tmp_path / "tokens", tokenizer_dir=tokenizer, val_share=0.3)
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "tokens").exists()
