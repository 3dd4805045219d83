"""What a result was measured on: versions, processor, commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("alignx", "torch", "transformers", "peft", "accelerate", "numpy")


def describe_environment() -> dict[str, Any]:
    """Versions, hardware and the commit of the source tree, when there is one."""
    return {
        "python": platform.python_version(),
        "platform": platform.system(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "accelerator": _accelerator(),
        "commit": source_commit(),
        **{package: version(package) for package in _PACKAGES},
    }


def processor_name() -> str:
    """The processor's model name, or its architecture when the system does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def source_commit() -> str:
    """Short commit of the checkout this package runs from, `+` when it has uncommitted changes; empty elsewhere."""
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", "environment.py")  # else it is somebody else's repository
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
