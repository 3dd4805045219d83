"""Whole-or-nothing folders, for artifacts of several files."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from alignx.runs import processes


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write files into a temporary neighbour, then put it in the folder's place.

    What the folder held before is gone afterwards; when `fill` raises, it is still there. Of several processes the
    main one writes and the others return when the folder is there, so `fill` itself must not wait for them, as
    `write_whole` does.
    """
    if not processes.is_main():
        processes.wait()
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
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
    processes.wait()
