"""Dense task vectors on disk: float32 safetensors shards with an index, written and read one tensor at a time.

The layout is that of Hugging Face's sharded checkpoints: `task_vector.safetensors.index.json` names the shard of every
tensor, `task_vector-00001-of-0000N.safetensors` hold them. A tensor's key is its parameter's name in the base.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alignx.errors import ArtifactError
from alignx.runs.files import read_json
from alignx.runs.folders import write_folder

MAX_SHARD_BYTES = 1_000_000_000
FORMAT_VERSION = 1
INDEX_FILE = "task_vector.safetensors.index.json"
_WEIGHT = ".weight"
_OTHER_PARAMETERS = (".bias",)


def write_dense(
    folder: Path,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a dense task vector, whole or not at all.

    Args:
        folder: where it goes; what lay there is replaced.
        tensors: (name, update) pairs, taken one at a time: no more than one shard is ever held. A name is that of a
            module and means its weight; another parameter is named in full (`...q_proj.bias`). Any float dtype; cast
            to float32.
        max_shard_bytes: most bytes of tensors a shard; a larger tensor gets a shard of its own.
        about: further json values for the index's metadata, such as the base the vector was taken against.

    Raises:
        ValueError: nothing to write, a name twice, a value that is not finite, or max_shard_bytes < 1.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes {max_shard_bytes} must be at least 1")
    write_folder(folder, lambda scratch: _fill(scratch, tensors, max_shard_bytes, dict(about or {})))


def _fill(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int, about: dict[str, Any]) -> None:
    shard_of: dict[str, int] = {}
    total_bytes = n_shards = 0
    for n_shards, shard in enumerate(_shards(tensors, max_shard_bytes), start=1):  # noqa: B007  (used below)
        for key, tensor in shard.items():
            if key in shard_of:
                raise ValueError(f"task vector: `{key}` is given twice; give every parameter once")
            shard_of[key] = n_shards
            total_bytes += tensor.nbytes
        save_file(shard, folder / f"{n_shards}.part", metadata={"format": "pt"})
    if not shard_of:
        raise ValueError("task vector: no tensors given; give at least one")
    # A shard's name says how many there are, which is known only now.
    for number in range(1, n_shards + 1):
        (folder / f"{number}.part").rename(folder / _shard_name(number, n_shards))
    index = {
        "metadata": {**about, "total_size": total_bytes, "format_version": FORMAT_VERSION},
        "weight_map": {key: _shard_name(number, n_shards) for key, number in shard_of.items()},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _shards(tensors: Iterable[tuple[str, Tensor]], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Tensors by key, grouped in the order given so that a group exceeds `max_bytes` only when it is one tensor."""
    shard: dict[str, Tensor] = {}
    n_bytes = 0
    for name, given in tensors:
        tensor = given.detach().to(device="cpu", dtype=torch.float32).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"task vector: `{name}` holds NaN or infinity; it cannot be kept")
        key = parameter_name(name)
        if key in shard:
            raise ValueError(f"task vector: `{key}` is given twice; give every parameter once")
        if shard and n_bytes + tensor.nbytes > max_bytes:
            yield shard
            shard, n_bytes = {}, 0
        # Entries that share memory, as tied weights do, would be refused by safetensors.
        shard[key] = tensor.clone() if tensor.data_ptr() == given.data_ptr() else tensor
        n_bytes += tensor.nbytes
    if shard:
        yield shard


def parameter_name(name: str) -> str:
    """A module's name as that of its weight; a name that is already a parameter's stays."""
    return name if name.endswith((_WEIGHT, *_OTHER_PARAMETERS)) else name + _WEIGHT


def _shard_name(number: int, count: int) -> str:
    return f"task_vector-{number:05d}-of-{count:05d}.safetensors"


class DenseVector:
    """A dense task vector on disk; tensors are read when asked for, from memory-mapped shards.

    Args:
        folder: what `write_dense` wrote.

    Raises:
        ArtifactError: no such folder, a damaged index, another format version, or a shard that is missing.

    Attributes:
        about: the index's metadata.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        index = read_json(self.folder / INDEX_FILE)
        try:
            self.about = dict(index["metadata"])
            self._shard_of = {str(key).removesuffix(_WEIGHT): str(shard) for key, shard in index["weight_map"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{self.folder / INDEX_FILE}: not an index of shards; write it again") from error
        if self.about.get("format_version") != FORMAT_VERSION:
            raise ArtifactError(
                f"{self.folder / INDEX_FILE}: format version {self.about.get('format_version')!r}, this program reads "
                f"{FORMAT_VERSION}; write it again"
            )
        for shard in sorted(set(self._shard_of.values())):
            if Path(shard).name != shard or not (self.folder / shard).is_file():
                raise ArtifactError(f"{self.folder}: shard `{shard}` is missing; write the task vector again")

    def names(self) -> list[str]:
        """Modules whose weight is updated, in the order written; other parameters by their full name."""
        return list(self._shard_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one update, from the shard's header alone.

        Raises:
            ArtifactError: see `tensor`.
        """
        return tuple(self._read(name, lambda shard, key: shard.get_slice(key).get_shape()))

    def tensor(self, name: str) -> Tensor:
        """One update, float32: (out, in) for a linear layer whichever way it keeps its weight, else as the parameter.

        Raises:
            ArtifactError: no such name, a damaged shard, or a value that is not finite.
        """
        tensor: Tensor = self._read(name, lambda shard, key: shard.get_tensor(key)).float()
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{self.folder}: `{name}` holds NaN or infinity; write the task vector again")
        return tensor

    def _read(self, name: str, read: Any) -> Any:
        module = name.removesuffix(_WEIGHT)
        if module not in self._shard_of:
            raise ArtifactError(f"{self.folder}: holds no update of `{name}`; it has {len(self._shard_of)} others")
        path = self.folder / self._shard_of[module]
        try:
            with safe_open(path, framework="pt") as shard:
                return read(shard, parameter_name(module))
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path}: damaged ({error}); write the task vector again") from error
