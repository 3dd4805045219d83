"""Whole-or-nothing folders, for artifacts of several files."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from alignx.errors import ArtifactError
from alignx.runs import processes
from alignx.runs.temporaries import SUFFIX, temporary_prefix


def check_space(folder: Path, n_bytes: int) -> None:
    """Check before a long job that what it will write fits the disk.

    Args:
        folder: where it will be written; need not exist yet.
        n_bytes: bytes it will take.

    Raises:
        ArtifactError: less is free.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < n_bytes:
        raise ArtifactError(
            f"{folder}: needs {n_bytes / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left; free some, or put the "
            "run elsewhere"
        )


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write files into a temporary neighbour, then put it in the folder's place.

    What the folder held before is gone afterwards; when `fill` raises, it is still there. Of several processes the
    main one writes and the others return when the folder is there, so `fill` itself must not wait for them, as
    `write_whole` does.
    """
    processes.from_main(lambda: _write_here(folder, fill))


def _write_here(folder: Path, fill: Callable[[Path], object]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(folder.name), suffix=SUFFIX, dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        fill(new)
        for path in new.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        # A folder cannot be replaced in one step; a kill in between leaves none, which every reader notices.
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
