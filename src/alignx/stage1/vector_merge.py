"""Task-vector arithmetic on adapters and dense vectors alike, always on the true update, one parameter at a time.

Sums of low-rank vectors stay low-rank, exactly; TIES and DARE do not, and neither does anything with a dense vector.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from alignx.errors import ConfigError
from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.parameter_matrix import module_seed
from alignx.stage1.task_vector import TaskVector, add, dare, ties
from alignx.stage1.vector_source import VectorSource, check_same_base

Updates = Iterator[tuple[str, LowRankUpdate | Tensor]]


def weighted_sum(sources: Sequence[VectorSource], weights: Sequence[float]) -> Updates:
    """sum_i weights_i tau_i by parameter: low-rank, from concatenated factors, when every input is; else dense.

    Raises:
        ConfigError: not one finite weight for each vector.
    """
    checked = checked_weights(weights, len(sources))
    low_rank = [source.vector for source in sources if isinstance(source.vector, TaskVector)]
    if len(low_rank) == len(sources):
        return iter(add(low_rank, checked).updates.items())
    return _dense(sources, lambda name, updates: _sum(updates, checked))


def ties_merge(
    sources: Sequence[VectorSource], *, density: float = 0.2, weights: Sequence[float] | None = None
) -> Updates:
    """TIES merge by parameter, dense; see `alignx.stage1.task_vector.ties`.

    Raises:
        ConfigError: density outside (0, 1], or not one finite weight for each vector.
    """
    _check_density(density)
    checked = None if weights is None else checked_weights(weights, len(sources))
    return _dense(sources, lambda name, updates: ties(updates, density=density, weights=checked))


def dare_merge(
    sources: Sequence[VectorSource], weights: Sequence[float], *, density: float = 0.5, seed: int = 0
) -> Updates:
    """DARE merge by parameter, dense; see `alignx.stage1.task_vector.dare`.

    Every parameter's drops are seeded by its name, as Stage 2's DARE merge seeds them.

    Raises:
        ConfigError: density outside (0, 1], or not one finite weight for each vector.
    """
    _check_density(density)
    checked = checked_weights(weights, len(sources))

    def merge(name: str, updates: list[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(module_seed(name, seed))
        return dare(updates, checked, density=density, generator=generator)

    return _dense(sources, merge)


def densify(updates: Updates) -> Iterator[tuple[str, Tensor]]:
    """Updates as dense float32 tensors, made one at a time."""
    return ((name, update.dense() if isinstance(update, LowRankUpdate) else update.float()) for name, update in updates)


def as_task_vector(updates: Updates) -> TaskVector:
    """Low-rank updates as one task vector.

    Raises:
        ValueError: one of them is dense.
    """
    held = dict(updates)
    low_rank = {name: update for name, update in held.items() if isinstance(update, LowRankUpdate)}
    if len(low_rank) < len(held):
        raise ValueError("a dense update has no factors; truncate it first")
    return TaskVector(low_rank)


def checked_weights(weights: Sequence[float], count: int) -> list[float]:
    """One finite weight for each of `count` vectors.

    Raises:
        ConfigError: another number of weights, or one that is not finite.
    """
    if len(weights) != count:
        raise ConfigError(f"{len(weights)} weights for {count} task vectors; give one for each, e.g. --weights 0.5,0.5")
    for weight in weights:
        if not math.isfinite(weight):
            raise ConfigError(f"weight {weight} is not a finite number; give numbers such as 0.5 or -1")
    return list(weights)


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise ConfigError(f"density {density} must be above 0 and at most 1: it is the share of entries kept")


def _dense(sources: Sequence[VectorSource], merge: Callable[[str, list[Tensor]], Tensor]) -> Updates:
    check_same_base(sources, trust=True)
    return map(partial(_merge_one, sources, merge), sources[0].names())


def _merge_one(
    sources: Sequence[VectorSource], merge: Callable[[str, list[Tensor]], Tensor], name: str
) -> tuple[str, LowRankUpdate | Tensor]:
    return name, merge(name, [source.tensor(name) for source in sources])


def _sum(updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(updates[0])
    for update, weight in zip(updates, weights, strict=True):
        total += weight * update
    return total
