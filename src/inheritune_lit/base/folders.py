"""How a folder comes into being: written in a staging folder beside its place, made durable, then renamed.

A reader sees the whole folder or none. A staging folder is named `.NAME.staging`, never `step-*`, because
`litgpt pretrain --resume auto` takes any nested `step-*` folder for a checkpoint.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inheritune_lit.base.errors import InheritError, InUse, NotInPlace
from inheritune_lit.base.file_system import lock, sync, unlock
from inheritune_lit.base.units import gib


@contextmanager
def staging(out_dir: Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """Yields an empty folder that becomes `out_dir` if the block ends without an error.

    Args:
        out_dir: The folder to bring into being.
        overwrite: Replace an existing `out_dir`. It stays as it is until the new one is whole.
        resume: Keep the staging folder when the block fails, and start from what an earlier try left in it.

    Raises:
        InheritError: `out_dir` exists and `overwrite` is off, its parent can't be written, another process is writing
            it, a link is in the staging folder's place, or the disk is full.
    """
    out_dir = Path.cwd() / out_dir  # not resolve(): a link to a folder elsewhere is replaced, not followed
    folder, old = (out_dir.with_name(f".{out_dir.name}.{what}") for what in ("staging", "old"))
    if os.path.islink(folder):  # noqa: PTH114  # False, not an error, where nothing may be read
        raise InheritError(f"{folder} is a link, and what it leads to would be emptied. Remove it.")
    if Path.cwd().is_relative_to(out_dir.resolve()):  # an empty path, too
        raise InheritError(f"{out_dir} is the folder that the command runs in, or holds it. Choose another --out_dir.")
    with locked(folder):
        if os.path.lexists(old) and not os.path.lexists(out_dir):  # killed between the two renames of _replace
            old.rename(out_dir)
        if os.path.lexists(out_dir) and not overwrite:
            with suppress(OSError):  # not empty: an earlier try's, to be resumed
                folder.rmdir()
            raise InheritError(f"{out_dir} exists already. Choose another folder, or pass --overwrite to replace it.")
        if not resume:  # what a killed run left
            _empty(folder)
        try:
            yield folder
            _sync_tree(folder)
            _replace(folder, out_dir, old)
        except BaseException as error:
            if not resume and not isinstance(error, NotInPlace):
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                free = shutil.disk_usage(out_dir.parent).free
                raise InheritError(
                    f"No room for {out_dir}: {error.strerror} ({gib(free)} free). "
                    "Free some space or choose an --out_dir on another disk; nothing was replaced."
                ) from error
            raise


def refuse_to_replace(out_dir: Path, *sources: Path) -> None:
    """What a command reads may not be what it replaces, not even with --overwrite.

    Raises:
        InheritError: `out_dir` is one of the folders, or holds one.
    """
    for source in sources:
        if Path(out_dir).resolve() in (source.resolve(), *source.resolve().parents):
            raise InheritError(f"--out_dir {out_dir} would replace {source}, which is read. Choose another folder.")


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Makes `folder` and holds a lock on it; the kernel lets go of the lock when its holder dies.

    Yields the lock's descriptor: a child process that inherits it holds the lock too, for as long as it lives.

    Raises:
        InUse: another process holds it, or removes the folder just now.
        InheritError: the folder can't be made.
    """
    busy = InUse(f"Another process is writing {folder} now. Wait for it, or stop it.")
    made = not os.path.lexists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        removed = isinstance(error, FileNotFoundError | FileExistsError) and not os.path.lexists(folder)
        if removed and str(error.filename) == str(folder):  # by who held it, since we saw it
            raise busy from None
        raise InheritError(f"Can't write {folder}: {error}. Choose an --out_dir that you may write.") from error
    try:
        descriptor = lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        raise busy from None
    except OSError as error:
        with suppress(OSError):
            if made:
                folder.rmdir()
        raise InheritError(
            f"Can't lock {folder}: {error.strerror}. Choose a folder that you may write, on a file system with locks "
            "(Lustre has them if mounted with -o flock)."
        ) from error
    try:
        yield descriptor
    finally:
        unlock(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        _remove(entry)


def _remove(path: Path) -> None:
    """A folder with all that is in it; a file or a link, but not what it leads to; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(folder: Path, out_dir: Path, old: Path) -> None:
    _remove(old)
    try:
        if os.path.lexists(out_dir):
            out_dir.rename(old)
        folder.rename(out_dir)
    except OSError as error:  # EXDEV where out_dir is a mount point, or comes with a container's image
        if os.path.lexists(old) and not os.path.lexists(out_dir):
            old.rename(out_dir)
        raise NotInPlace(
            f"{folder} is whole, and can't take the place of {out_dir}: {error.strerror}. Nothing was replaced: "
            "move it there yourself, or choose an --out_dir that can be renamed."
        ) from error
    sync(out_dir.parent)
    _remove(old)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            sync(Path(root) / name)
        sync(Path(root))


def natural(name: str) -> tuple[str | int, ...]:
    """What to sort names by, so that h.2 comes before h.10."""
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name)))
