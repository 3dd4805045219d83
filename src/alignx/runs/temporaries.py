"""Names of files that are being written, and the removal of those whose writer was killed."""

import hashlib
import os
import platform
import shutil
import time
from pathlib import Path

SUFFIX = ".part"
_FOREIGN_HOURS = 1.0  # a writer on another host cannot be looked up; none takes this long for one file


def temporary_prefix(name: str) -> str:
    """Start of the temporary's name beside `name`: hidden, and says who writes it; ends are random, then `SUFFIX`."""
    return f".{name[:120]}.{_host()}.{os.getpid()}."


def remove_stale(root: Path) -> list[Path]:
    """Remove temporaries of writers that are gone; returns what was removed.

    Those of this host's living processes stay, and young ones of other hosts.
    """
    stale = [path for path in sorted(root.rglob(f".*{SUFFIX}")) if _is_stale(path)]
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return stale


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_stale(path: Path) -> bool:
    parts = path.name.removesuffix(SUFFIX).rsplit(".", 3)
    if len(parts) != 4 or not parts[2].isdigit():
        return False  # not a name of ours
    if parts[1] == _host():
        return not _is_alive(int(parts[2]))
    try:
        return time.time() - path.stat().st_mtime > _FOREIGN_HOURS * 3600
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
