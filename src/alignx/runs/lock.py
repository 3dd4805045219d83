"""One writer a run directory: commands that write hold a lock, which ends with their process however that ends."""

import errno
import fcntl
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignx.errors import ArtifactError, ConfigError
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory
from alignx.runs.temporaries import remove_stale

LOCK_NAME = ".lock"
# Directories this process has locked -> the thread that has; a locked job may call another on the same directory.
_held: dict[Path, int] = {}


@contextmanager
def writing(root: Path) -> Iterator[RunDirectory]:
    """A run directory to write into, with nobody else writing; what killed writers left half-written is removed.

    Of several processes of one job the main one takes the lock. The folder is made, and removed again if nothing was
    put into it.

    Raises:
        ConfigError: there is something else than a folder.
        ArtifactError: another process writes into it, or it is of another schema version.
        OSError: the folder cannot be made or written into.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root}: is not a folder; give another --out")
    place = root.resolve()
    if not processes.is_main() or _held.get(place) == threading.get_ident():
        yield RunDirectory(root)
        return
    made = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
    lock = None
    try:
        lock = _acquire(root)
        _held[place] = threading.get_ident()
        for path in remove_stale(root):
            notice(f"{path.relative_to(root)}: removed (left half-written by a process that was killed)")
        run = RunDirectory(root)
        run.check_schema()
        yield run
    finally:
        if lock is not None:
            _held.pop(place, None)
            (root / LOCK_NAME).unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
            os.close(lock)
        for path in made:
            try:
                path.rmdir()
            except OSError:  # something was put into it
                break


def _acquire(root: Path) -> int:
    """Lock the directory; returns the open lock file."""
    path = root / LOCK_NAME
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _flock(handle, root)
            if _is_at(handle, path):
                owner = f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
                with suppress(OSError):  # on a full disk the lock holds all the same
                    os.truncate(handle, 0)
                    os.pwrite(handle, owner.encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner removed the file between our opening and locking it


def _flock(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            owner = os.pread(handle, 200, 0).decode("utf-8", "replace") or "another process"
            raise ArtifactError(
                f"{root}: {owner} writes into it; wait until it is done, or use another --out"
            ) from None
        notice(f"{root}: this file system has no locks ({error.strerror}); let one process at a time write into it")


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
