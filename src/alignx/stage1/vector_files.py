"""Keeping the result of task-vector arithmetic: an adapter where that is exact or a rank is asked for, else dense."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from alignx.errors import ConfigError
from alignx.models.low_rank import LowRankUpdate
from alignx.progress import progress
from alignx.stage1.dense_vector import write_dense
from alignx.stage1.truncate import Truncation, truncate
from alignx.stage1.vector_merge import Updates, as_task_vector, densify
from alignx.stage1.vector_source import VectorSource
from alignx.stage1.write_adapter import write_task_vector


@dataclass(frozen=True)
class SavedVector:
    """What was written.

    Attributes:
        folder: where.
        rank: rank of the adapter; none: a dense task vector.
        n_parameters: parameters updated.
        truncation: what cutting to a rank dropped; none: nothing was cut.
    """

    folder: Path
    rank: int | None
    n_parameters: int
    truncation: Truncation | None

    def document(self) -> dict[str, Any]:
        """For json: every parameter's norm and what was dropped of it, where something was cut."""
        found: dict[str, Any] = {"out": str(self.folder), "format": "dense" if self.rank is None else "adapter"}
        found |= {"rank": self.rank, "parameters": self.n_parameters}
        if self.truncation is not None:
            found["dropped"] = {
                "overall": self.truncation.overall,
                "mean": self.truncation.mean,
                "largest": dict([self.truncation.largest]),
                "by_parameter": {
                    name: {"norm": norm, "dropped": self.truncation.dropped[name]}
                    for name, norm in self.truncation.norms.items()
                },
            }
        return found


def check_out(folder: Path) -> None:
    """Refuse to write over something.

    Raises:
        ConfigError: the folder exists and is not empty, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: exists and is not empty; remove it or give another folder")


def save_vector(
    folder: Path,
    updates: Updates,
    sources: Sequence[VectorSource],
    *,
    recipe: Mapping[str, Any],
    rank: int | None = None,
    dense: bool = False,
) -> SavedVector:
    """Write the result of an operation.

    Args:
        folder: a new or empty folder.
        updates: the result, by parameter.
        sources: the inputs; their base is noted beside the result.
        recipe: operation and settings in json values, kept in the adapter's `task_vector.json` or the dense index.
        rank: cut to this rank and write an adapter; none: an adapter when the result is low-rank, else dense.
        dense: write dense even what is low-rank.

    Raises:
        ConfigError: see `check_out`; rank below 1, or asked for together with dense.
    """
    check_out(folder)
    if rank is not None and (dense or rank < 1):
        raise ConfigError(f"--rank {rank}: give a rank of 1 or more, and not together with --dense")
    first = next(updates)
    updates = chain([first], updates)
    bases = {source.base for source in sources if source.base} or {""}
    digests = {source.base_digest for source in sources}
    about = {
        **recipe,
        "inputs": [source.label for source in sources],
        "base": sorted(bases)[0],
        "base_digest": digests.pop() if len(digests) == 1 else "",
    }
    names = sources[0].names()
    if rank is not None:
        cut = truncate(_counted(updates, f"cut to rank {rank}", len(names)), rank)
        written_rank = max(update.a.shape[0] for update in cut.vector.updates.values())
        note = {**about, "dropped_share": cut.overall}
        write_task_vector(folder, cut.vector, base=about["base"], about=note)
        return SavedVector(folder, written_rank, len(cut.vector.updates), cut)
    if isinstance(first[1], LowRankUpdate) and not dense:
        vector = as_task_vector(updates)
        write_task_vector(folder, vector, base=about["base"], about=about)
        return SavedVector(folder, max(u.a.shape[0] for u in vector.updates.values()), len(names), None)
    write_dense(folder, densify(_counted(updates, str(recipe["operation"]), len(names))), about=about)
    return SavedVector(folder, None, len(names), None)


def _counted(updates: Updates, description: str, total: int) -> Updates:
    def count() -> Iterator[Any]:
        with progress(description, total) as advance:
            for pair in updates:
                yield pair
                advance(1)

    return count()
