"""File systems without locks (Lustre, some NFS) or syncs of folders (SMB, FUSE, WSL); renames that fail."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.faults import Fault
from helpers.models import TEXTS, write_bpe
from helpers.small_runs import make_recipe

from inheritune_lit.__main__ import main
from inheritune_lit.base import file_system
from inheritune_lit.base.errors import InheritError, InUse
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.base.folders import locked, staging
from inheritune_lit.prepare.command import prepare
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)
NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES)


def place_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`no_locks(number, folder)`: what is below `folder` has none."""
    real = fcntl.flock

    def install(number: int, folder: Path) -> None:
        def flock(descriptor: int, operation: int) -> None:
            if place_of(descriptor).is_relative_to(folder):
                raise OSError(number, os.strerror(number))
            real(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        monkeypatch.setattr(file_system, "_told", set())

    return install


@pytest.mark.parametrize("number", NO_LOCKS)
def test_no_locks(
    number: int, llama: Path, tmp_path: Path, fault: Fault, no_locks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It works, says once that only this machine's processes are kept apart, and does keep them apart."""
    no_locks(number, tmp_path)
    for layers in (2, 3):
        with fault(llama):
            surgery(llama, layers=str(layers), out_dir=tmp_path / "target", overwrite=True)
        verify(tmp_path / "target", source=llama)
    said = capsys.readouterr().err
    assert said.count("has no locks") == said.count("\n") == 1, said
    with locked(tmp_path / ".target.staging"):
        with pytest.raises(InheritError, match="Another process is writing"):
            surgery(llama, layers="2", out_dir=tmp_path / "target", overwrite=True)
        with locked(tmp_path / ".other.staging"):
            pass
    with staging(tmp_path / "target", overwrite=True):
        pass
    assert [path.name for path in tmp_path.iterdir() if "other" not in path.name] == ["target"]


HOLD = """
import fcntl, sys, time
from pathlib import Path
real = fcntl.flock
def flock(descriptor, operation):
    if len(flock.tried) == 0:
        flock.tried.append(1)
        raise OSError(38, "Function not implemented")
    real(descriptor, operation)
flock.tried = []
fcntl.flock = flock
from inheritune_lit.base.folders import locked
with locked(Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(60)
"""


def test_who_was_killed_holds_nothing_there(tmp_path: Path, no_locks: Any) -> None:
    no_locks(errno.ENOSYS, tmp_path)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        with pytest.raises(InUse), locked(tmp_path / "run"):
            pass
        process.kill()
        process.wait()
    with locked(tmp_path / "run"):
        pass


def test_no_locks_for_prepare_and_pretrain(
    tmp_path: Path, fault: Fault, no_locks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    no_locks(errno.ENOLCK, tmp_path)
    recipe = make_recipe(tmp_path, 4)
    assert (tmp_path / "tokens/manifest.json").is_file()
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe | {"out_dir": str(tmp_path / "run")}))
    (tmp_path / "run").mkdir()
    with fault(tmp_path / "tokens"):
        main(["pretrain", str(tmp_path / "recipe.yaml"), "--dry_run"])
    assert capsys.readouterr().err.count("has no locks") == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EIO])
def test_no_locks_anywhere(number: int, llama: Path, tmp_path: Path, fault: Fault, no_locks: Any) -> None:
    """One line, and no litter."""
    no_locks(number, Path("/"))
    write_bpe(tmp_path / "bpe")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/0.txt").write_text(TEXTS[0])
    before = sorted(tmp_path.iterdir())
    with fault(llama), pytest.raises(SystemExit) as info:
        main(["surgery", str(llama), "--layers=2", "--out_dir", str(tmp_path / "target")])
    assert f"Can't lock {tmp_path}/.target.staging: {os.strerror(number)}." in str(info.value.code)
    assert "-o flock" in str(info.value.code)
    assert "\n" not in str(info.value.code)
    with fault(tmp_path / "text"), pytest.raises(InheritError, match="Can't lock"):
        prepare(str(tmp_path / "text"), out_dir=tmp_path / "tokens", tokenizer_dir=tmp_path / "bpe")
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`syncs(number, folders)`: a folder, or a file, can't be synced."""
    real = os.fsync

    def install(number: int, folders: bool) -> None:
        def fsync(descriptor: int) -> None:
            if place_of(descriptor).is_dir() == folders:
                raise OSError(number, os.strerror(number))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    return install


@pytest.mark.parametrize("number", NO_FOLDERS)
def test_no_syncs_of_folders(number: int, llama: Path, tmp_path: Path, fault: Fault, syncs: Any) -> None:
    """No error, above all not after all the work."""
    syncs(number, folders=True)
    with fault(llama):
        surgery(llama, layers="2", out_dir=tmp_path / "target")
        surgery(llama, layers="3", out_dir=tmp_path / "target", overwrite=True)
    verify(tmp_path / "target", source=llama)
    write_json_whole(tmp_path / "a.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "target"]


def test_folder_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def no_folders(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if Path(path).is_dir() and Path(path).name != ".target.staging":  # which is locked
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", no_folders)
    with staging(tmp_path / "target") as folder:
        (folder / "file").touch()
    assert (tmp_path / "target/file").exists()


@pytest.mark.parametrize("folders", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_sync_that_fails(number: int, folders: bool, llama: Path, tmp_path: Path, fault: Fault, syncs: Any) -> None:
    """An error of the disk stays an error, in a line; the old target stays."""
    target = tmp_path / "target"
    surgery(llama, layers="2", out_dir=target)
    syncs(number, folders=folders)
    with fault(target, llama), pytest.raises(SystemExit) as info:
        main(["surgery", str(llama), "--layers=3", "--overwrite", "--out_dir", str(target)])
    assert os.strerror(number) in str(info.value.code)
    assert str(tmp_path) in str(info.value.code)
    assert "\n" not in str(info.value.code)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY])
@pytest.mark.parametrize("name", ["target", ".target.staging"])
def test_rename_that_fails(
    name: str, number: int, llama: Path, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point, or a folder of a container's image: the old one stays, the new one, whole, is named and stays."""
    target, real = tmp_path / "target", Path.rename
    surgery(llama, layers="2", out_dir=target)

    def rename(self: Path, to: Path) -> Path:
        if self.name == name:
            raise OSError(number, os.strerror(number), str(self))
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with fault(target), pytest.raises(InheritError, match=r"\.target\.staging is whole, and can't take the place of"):
        surgery(llama, layers="3", out_dir=target, overwrite=True)
    verify(tmp_path / ".target.staging", source=llama)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".target.staging", "target"]
