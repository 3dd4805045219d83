"""The nearest update of a given rank, and how much of the true one it drops."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.best_factors import best_factors
from alignx.stage1.parameter_matrix import module_seed
from alignx.stage1.task_vector import TaskVector

# Parameters that look like matrices but are looked up, not multiplied: plain LoRA cannot hold their update.
_LOOKED_UP = ("embed", "wte", "wpe")


@dataclass(frozen=True)
class Truncation:
    """What cutting a task vector to a rank keeps and drops.

    Attributes:
        vector: the kept part.
        norms: Frobenius norm of the true update, by parameter.
        dropped: Frobenius norm of what was dropped, by parameter; all of it where LoRA cannot hold the update.
    """

    vector: TaskVector
    norms: dict[str, float]
    dropped: dict[str, float]

    def dropped_share(self, name: str) -> float:
        """Dropped norm of one parameter as a share of its norm, in [0, 1]; 0 where the update is zero."""
        return self.dropped[name] / self.norms[name] if self.norms[name] > 0 else 0.0

    @property
    def largest(self) -> tuple[str, float]:
        """The parameter that loses most, and its dropped share."""
        name = max(self.norms, key=self.dropped_share)
        return name, self.dropped_share(name)

    @property
    def mean(self) -> float:
        """Mean dropped share over parameters."""
        return sum(map(self.dropped_share, self.norms)) / len(self.norms)

    @property
    def overall(self) -> float:
        """Dropped norm of the whole vector as a share of its norm."""
        whole = sum(norm**2 for norm in self.norms.values())
        return (sum(dropped**2 for dropped in self.dropped.values()) / whole) ** 0.5 if whole > 0 else 0.0


def truncate(updates: Iterable[tuple[str, LowRankUpdate | Tensor]], rank: int) -> Truncation:
    """Cut every module's update to its `rank` largest singular directions.

    Args:
        updates: (module, update) pairs, taken one at a time; a low-rank one is cut from its factors.
        rank: largest rank kept.

    Raises:
        ValueError: rank < 1, or no update is a matrix.

    Source: Eckart and Young 1936: no update of that rank is nearer in Frobenius norm.
    """
    if rank < 1:
        raise ValueError(f"rank {rank} must be at least 1")
    kept: dict[str, LowRankUpdate] = {}
    norms: dict[str, float] = {}
    dropped: dict[str, float] = {}
    for name, update in updates:
        if isinstance(update, Tensor) and not is_linear(name, update):
            norms[name] = dropped[name] = float(torch.linalg.vector_norm(update.double()))
            continue
        if isinstance(update, Tensor):
            found = best_factors(update, min(rank, *update.shape), seed=module_seed(name, 0))
            kept[name] = found.update
            norms[name], dropped[name] = found.squared_norm**0.5, found.squared_dropped**0.5
            continue
        left, values, right = thin_svd(update)
        n_kept = min(rank, len(values))
        root = values[:n_kept].sqrt()  # shared out evenly, so that neither factor is much larger than the other
        kept[name] = LowRankUpdate(
            (root[:, None] * right[:, :n_kept].T).float(), (left[:, :n_kept] * root).float(), 1.0
        )
        norms[name] = float(torch.linalg.vector_norm(values))
        dropped[name] = float(torch.linalg.vector_norm(values[n_kept:]))
    if not kept:
        raise ValueError("no parameter of the task vector is a linear layer's matrix; write it dense instead")
    return Truncation(TaskVector(kept), norms, dropped)


def is_linear(name: str, update: Tensor) -> bool:
    """Whether an update belongs to a linear layer's matrix."""
    parts = name.rsplit(".", 1)[-1].lower()
    return update.dim() == 2 and not any(word in parts for word in _LOOKED_UP)


def thin_svd(update: LowRankUpdate | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, q), singular values (q,) and V (in, q) of an update, in float64.

    Of a low-rank update from its factors, never making the (out, in) matrix: with B = Q_b R_b and A^T = Q_a R_a the
    update is Q_b (s R_b R_a^T) Q_a^T, and only the small middle is decomposed.
    """
    if isinstance(update, Tensor):
        left, values, right_t = torch.linalg.svd(update.double(), full_matrices=False)
        return left, values, right_t.T
    q_b, r_b = torch.linalg.qr(update.b.double())
    q_a, r_a = torch.linalg.qr(update.a.double().T)
    left, values, right_t = torch.linalg.svd(update.scale * (r_b @ r_a.T), full_matrices=False)
    return q_b @ left, values, q_a @ right_t.T
