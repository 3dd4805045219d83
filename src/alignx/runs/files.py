"""Whole-or-nothing files: json, jsonl, text and safetensors."""

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignx.errors import ArtifactError
from alignx.runs import processes
from alignx.runs.safetensors_header import check_names_once
from alignx.runs.temporaries import SUFFIX, temporary_prefix

_DTYPES = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
}

_PATIENCE_SECONDS = 30.0


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour, then put it in place in one step.

    Of several processes the main one writes; the others return when the file is there.

    Raises:
        OSError: it cannot be written, such as on a full disk; names the file.
        ArtifactError: a process does not see the file that the main one wrote.
    """
    processes.from_main(lambda: write_here(path, write))
    if not processes.is_main():
        _await(path)


def write_here(path: Path, write: Callable[[Path], object]) -> None:
    """The same by every process for itself.

    Raises:
        OSError: it cannot be written, such as on a full disk; names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=temporary_prefix(path.name), suffix=SUFFIX, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:  # a failed write to an open file names no file
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _await(path: Path) -> None:
    """A file system shared between machines may show a new file a little late."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            raise ArtifactError(
                f"{path}: written by the main process, but process {processes.rank()} does not see it; put the run "
                "directory on a file system that all machines share"
            )
        time.sleep(0.1)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON; NaN and infinities are refused because they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            save_file(ready, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # the writer's own error hides the system's
            raise OSError(_system_error(str(error)), str(error), str(path)) from error

    write_whole(path, save)


def _system_error(message: str) -> int:
    """Error number in a message of the safetensors writer; a full disk where it says none."""
    found = re.search(r"os error (\d+)", message)
    return int(found.group(1)) if found else errno.ENOSPC


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the step that makes it again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove it and run the step that makes it again") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line.

    Raises:
        ArtifactError: missing or damaged; names the line.
    """
    try:
        # Not splitlines: it also splits at line ends that JSON leaves inside strings, such as U+2028.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error}); run its step again") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove it and run its step again") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: line {number} is damaged; remove the file and run its step again") from error
    return rows


def read_named_tensor(path: Path, name: str) -> Tensor:
    """The only tensor of a file.

    Raises:
        ArtifactError: as `read_tensors`, or the file holds others.
    """
    tensors = read_tensors(path)
    if tensors.keys() != {name}:
        raise ArtifactError(
            f"{path}: expected one tensor `{name}`, found {', '.join(sorted(tensors))[:80] or 'none'}; remove it and "
            "run the step that makes it again"
        )
    return tensors[name]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors, all finite.

    Raises:
        ArtifactError: missing, damaged, of a dtype that is not computed with, or a tensor holds NaN or infinity.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
        check_names_once(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the step that makes it again") from None
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path}: damaged ({reason}); remove it and run the step that makes it again") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ArtifactError(
                f"{path}: tensor `{name:.80}` is {tensor.dtype}, which is not computed with; save it as float32"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(
                f"{path}: tensor `{name:.80}` holds NaN or infinity; remove the file and run its step again"
            )
    return tensors
