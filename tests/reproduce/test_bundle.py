"""What another lab is sent, and zips that are none of ours."""

import stat
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from inheritune_lit.base.errors import InheritError
from inheritune_lit.recipes.listing import shipped
from inheritune_lit.reproduce import ship
from inheritune_lit.reproduce.bundle import MOST_BYTES, Bundle, extract

LINK = zipfile.ZipInfo("link")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    ship("openllama3b_n13", out_dir=tmp_path / "sent.zip")
    return tmp_path / "sent.zip"


def test_a_zip_is_what_the_folder_is(tmp_path: Path, zipped: Path) -> None:
    ship("openllama3b_n13", out_dir=tmp_path / "sent")
    (tmp_path / "out").mkdir()
    extract(zipped, tmp_path / "out")
    files = {path.relative_to(tmp_path / "sent"): path.read_bytes() for path in (tmp_path / "sent").rglob("*.*")}
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files} == files
    assert {"README.md", "surgery.yaml", "data.yaml", "eval/low_data.yaml"} <= {path.as_posix() for path in files}
    readme = files[Path("README.md")].decode()
    assert "6.9 GB" in readme
    assert "apache-2.0" in readme
    assert "was not run by who ships it" in readme


def test_every_shipped_recipe_can_be_sent(tmp_path: Path) -> None:
    for name in ("openllama7b_n7_best", "gpt2/medium_n12", "gpt2/medium_n12_kd", "gpt2/large_k36"):
        ship(name, out_dir=tmp_path / name)
        assert Bundle.open(str(tmp_path / name), tmp_path / "work").name == name.rpartition("/")[2]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("../out", "leads out"),
        ("/etc/passwd", "leads out"),
        ("a/../../b", "leads out"),
        ("a\\..\\b", "leads out"),
        (LINK, "a link"),
    ],
)
def test_a_zip_that_reaches_elsewhere(tmp_path: Path, zipped: Path, entry: str | zipfile.ZipInfo, said: str) -> None:
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(entry, "/etc")
    with pytest.raises(InheritError, match=said):
        Bundle.open(str(zipped), tmp_path / "work")
    assert not (tmp_path / "work/recipe").exists()


def test_a_bomb(tmp_path: Path, zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(MOST_BYTES))
    assert zipped.stat().st_size < 10**6
    with pytest.raises(InheritError, match="unpacks to"):
        Bundle.open(str(zipped), tmp_path / "work")


def test_damaged_zips(tmp_path: Path, zipped: Path) -> None:
    content = bytearray(zipped.read_bytes())
    for position in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        zipped.write_bytes(damaged)
        with suppress(InheritError):  # and nothing else
            Bundle.open(str(zipped), tmp_path / "work")
    zipped.write_bytes(content[: len(content) // 2])
    with pytest.raises(InheritError, match="Can't unpack"):
        Bundle.open(str(zipped), tmp_path / "work")


@pytest.mark.parametrize("name", ["no/such", "openllama3b_n99"])
def test_what_is_no_recipe(tmp_path: Path, name: str) -> None:
    with pytest.raises(InheritError, match="no shipped recipe"):
        Bundle.open(name, tmp_path)


def test_a_folder_is_not_overwritten(tmp_path: Path, zipped: Path) -> None:
    before = zipped.read_bytes()
    with pytest.raises(InheritError, match="exists already"):
        ship("openllama3b_n13", out_dir=zipped)
    assert zipped.read_bytes() == before


def test_nothing_names_this_machine(tmp_path: Path) -> None:
    ship("openllama3b_n13", out_dir=tmp_path / "sent")
    for path in (tmp_path / "sent").rglob("*.*"):
        if path.suffix not in (".png", ".svg"):
            assert str(shipped().resolve().parent) not in path.read_text()
