"""Locks and syncs, also where a file system lacks one: Lustre without `-o flock`, some NFS; SMB, FUSE, WSL's drives."""

import errno
import fcntl
import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

NOT_OFFERED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
NO_LOCKS = (*NOT_OFFERED, errno.ENOLCK, errno.EBADF)  # the last: NFS locks only what is open for writing
NO_FOLDERS = (*NOT_OFFERED, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)

_told: set[int] = set()
_instead: dict[int, Path] = {}  # descriptor → the folder that is locked instead of another


def lock(path: Path, operation: int) -> int:
    """Locks a file or folder, as fcntl.flock does; the kernel lets go when all processes that have it open are gone.

    On a file system without locks an empty folder in this machine's memory is locked in its place. That keeps only the
    processes of one machine apart, which is said.

    Returns:
        The descriptor, for unlock(), and to hand on to a child.

    Raises:
        BlockingIOError: another process holds the lock, and `operation` has LOCK_NB.
        FileNotFoundError: who held it has removed or renamed the path meanwhile.
        OSError: neither can be locked.
    """
    try:
        return _lock(path, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        reason = error
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    place /= f"inheritune-lock-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}"
    try:
        place.mkdir(exist_ok=True)
        descriptor = _lock(place, operation)
    except (BlockingIOError, FileNotFoundError):
        raise
    except OSError:
        raise reason from None
    _instead[descriptor] = place
    if not path.exists():
        unlock(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if (device := path.stat().st_dev) not in _told:
        _told.add(device)
        print(
            f"The file system of {path} has no locks ({reason.strerror}): only processes of this machine are kept "
            "from writing there at the same time. See that no other machine does.",
            file=sys.stderr,
        )
    return descriptor


def unlock(descriptor: int) -> None:
    """Lets go of what lock() locked, unless a child has it open, too."""
    if place := _instead.pop(descriptor, None):
        with suppress(OSError):
            place.rmdir()
    os.close(descriptor)


def _lock(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(descriptor, operation)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def sync(path: Path) -> None:
    """Makes a file's bytes or a folder's entries durable, as far as its file system can.

    Raises:
        OSError: they could not be written, for a full disk or a fault of it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (NO_FOLDERS if path.is_dir() else NOT_OFFERED):
            raise OSError(error.errno, error.strerror, str(path)) from error
