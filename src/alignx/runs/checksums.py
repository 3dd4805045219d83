"""What a file held when its step wrote it: size and sha256, so that one flipped bit is noticed before use."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A file is hashed once a process, and again only after it was written anew.
_known: dict[tuple[Path, int, int, int], str] = {}


def file_checksum(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 (hex).

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    key = (path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _known:
        with path.open("rb") as file:
            _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": status.st_size, "sha256": _known[key]}


def matches(path: Path, checksum: Mapping[str, Any]) -> bool:
    """Whether a file is there and is as it was; another size is seen without reading it."""
    try:
        return bool(path.stat().st_size == checksum["bytes"] and file_checksum(path)["sha256"] == checksum["sha256"])
    except OSError:
        return False
