"""Where a base's own bits are read from after something was added to its weights.

Weights are put back from a file, so no second copy of the base is held: from the base's safetensors checkpoint where
that holds exactly the bits that were loaded; else (a GGUF base, which is dequantised, or one loaded in another dtype)
from a file of ours, written once. Files are read through a handle straight into the weights: nothing is mapped, so
nothing counts to the process. A base that comes from no file is copied.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignx.errors import ArtifactError
from alignx.models.fingerprint import tensor_sha256
from alignx.models.load import ModelSource
from alignx.models.named import named_weight, parameter_name
from alignx.progress import notice
from alignx.runs.files import write_here

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNMENT = 64


@dataclass(frozen=True)
class _Stored:
    """A tensor in an open file.

    Attributes:
        file: number of the open file.
        start: of its bytes in the file.
    """

    file: int
    start: int


class Originals:
    """The original bits of a base's weights.

    Args:
        model: the base; its weights must be the original ones whenever `keep` is called.
        source: where it was loaded from; none or a place without files: originals are copies in memory.
    """

    def __init__(self, model: Any, source: ModelSource | None = None) -> None:
        self._model = model
        self._source = source
        self._kept: dict[str, _Stored | Tensor] = {}
        self._files: dict[int, tuple[Path, tuple[int, int]]] = {}  # open file -> its path, its size and time of change

    @property
    def copied_bytes(self) -> int:
        """Bytes of originals that are held in memory, for want of a file."""
        return sum(kept.nbytes for kept in self._kept.values() if isinstance(kept, Tensor))

    def keep(self, names: Iterable[str]) -> None:
        """Make sure that these weights (as `named_weight` takes them) can be put back; the first time takes a while."""
        missing = [name for name in names if name not in self._kept]
        if not missing:
            return
        for path in self._checkpoint_files():
            missing = self._take(path, missing)
        if missing and self._has_file():
            path = _own_file(self._model, missing)
            left = self._take(path, missing) if path.is_file() else missing
            if left:
                try:
                    write_here(path, lambda temporary: _write(temporary, self._model, missing))
                    missing = self._take(path, missing)
                except OSError as error:
                    notice(f"{error.filename or path}: cannot be written; the base's weights are kept twice in memory")
            else:
                missing = []
        for name in missing:
            self._kept[name] = named_weight(self._model, name).detach().clone()

    @torch.no_grad()
    def restore(self, names: Iterable[str]) -> None:
        """Put the original bits back.

        Raises:
            ArtifactError: their file was changed meanwhile; the base is not what it was any more.
        """
        for name in names:
            kept, weight = self._kept[name], named_weight(self._model, name)
            if isinstance(kept, Tensor):
                weight.copy_(kept)
                continue
            self._check_unchanged(kept.file)
            if weight.device.type == "cpu" and weight.is_contiguous():
                _read(kept, weight.detach())
            else:
                original = torch.empty(weight.shape, dtype=weight.dtype)
                _read(kept, original)
                weight.copy_(original)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
        self._files, self._kept = {}, {}

    def __del__(self) -> None:
        self.close()

    def _checkpoint_files(self) -> list[Path]:
        if self._source is None or self._source.gguf_file or not self._source.location:
            return []
        folder = Path(self._source.location)
        if not folder.is_dir():
            folder = _downloaded(self._model, self._source.location)
        return sorted(folder.glob("*.safetensors"))

    def _has_file(self) -> bool:
        source = self._source
        return source is not None and (bool(source.gguf_file) or bool(self._checkpoint_files()))

    def _take(self, path: Path, names: list[str]) -> list[str]:
        """Those of the weights whose bits a file holds are kept there; returns the others."""
        try:
            header, start = _header(path)
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except (OSError, ValueError):
            return names
        status = os.fstat(file)
        self._files[file] = path, (status.st_size, status.st_mtime_ns)
        left = []
        for name in names:
            weight = named_weight(self._model, name)
            entry = _entry(header, parameter_name(self._model, name), weight)
            stored = None if entry is None else _Stored(file, start + entry)
            if stored is not None and _holds(stored, weight):
                self._kept[name] = stored
            else:
                left.append(name)
        return left

    def _check_unchanged(self, file: int) -> None:
        path, known = self._files[file]
        status = os.fstat(file)
        if (status.st_size, status.st_mtime_ns) != known:
            raise ArtifactError(
                f"{path}: was changed while its weights were in use, so the base cannot be put back; load the model "
                "again"
            )


def _downloaded(model: Any, location: str) -> Path:
    """The folder of a hub model's files; one without files when they are not there."""
    from huggingface_hub import snapshot_download

    commit = getattr(model.config, "_commit_hash", None)
    try:
        return Path(snapshot_download(location, revision=commit, local_files_only=True))
    except Exception:  # its many errors all mean: not on this machine
        return Path(location)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors header, and where the tensors' bytes start."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("no safetensors file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("no safetensors file")
    return header, 8 + length


def _entry(header: Mapping[str, Any], parameter: str, weight: Tensor) -> int | None:
    """Where a file keeps a weight of that name, shape and dtype; checkpoints may leave out the model's first name."""
    for key in (parameter, parameter.partition(".")[2]):
        found = header.get(key)
        if isinstance(found, dict) and (found.get("dtype"), found.get("shape")) == (
            _DTYPES.get(weight.dtype),
            list(weight.shape),
        ):
            offsets = found.get("data_offsets")
            if isinstance(offsets, list) and offsets and isinstance(offsets[0], int):
                return offsets[0]
    return None


def _holds(stored: _Stored, weight: Tensor) -> bool:
    try:
        original = torch.empty(weight.shape, dtype=weight.dtype)
        _read(stored, original)
    except (ArtifactError, OSError):
        return False
    return torch.equal(original.view(torch.uint8), weight.detach().cpu().contiguous().view(torch.uint8))


def _read(stored: _Stored, into: Tensor) -> None:
    """Fill a contiguous tensor on the processor from a file."""
    target = _bytes(into)
    done = 0
    while done < len(target):
        count = os.preadv(stored.file, [target[done:]], stored.start + done)
        if count == 0:
            raise ArtifactError("the file of the base's weights is too short; load the model again")
        done += count


def _own_file(model: Any, names: Iterable[str]) -> Path:
    """Our own file of these weights, named by their bits."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {tensor_sha256(named_weight(model, name))}\n".encode())
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "alignx" / "weights" / f"{digest.hexdigest()[:32]}.safetensors"


def _write(path: Path, model: Any, names: Iterable[str]) -> None:
    """Write weights as safetensors, one after the other, so that no second copy is made of all."""
    weights = {parameter_name(model, name): named_weight(model, name).detach() for name in names}
    header, end = {}, 0
    for parameter, weight in weights.items():
        header[parameter] = {
            "dtype": _DTYPES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [end, end + weight.nbytes],
        }
        end += weight.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for weight in weights.values():
            file.write(_bytes(weight.cpu().contiguous()))


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the processor."""
    numbers: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(numbers)
