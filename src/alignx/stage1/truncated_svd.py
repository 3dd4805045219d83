"""A dense task vector as factors: the best update of a given rank for every linear layer, and what it leaves out.

Gates, the parameter matrix and PEFT's format need factors; a fully fine-tuned expert has none, so it is truncated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignx.models.layers import linear_shape
from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.best_factors import best_factors
from alignx.stage1.parameter_matrix import module_seed


@dataclass(frozen=True)
class DroppedNorm:
    """What the truncation of a task vector leaves out.

    Attributes:
        rank: of the factors.
        modules: linear layer -> (norm of its update, share of its square that was dropped).
        left_out: parameter without factors (embeddings, norms, output head, biases) -> norm of its update.
    """

    rank: int
    modules: Mapping[str, tuple[float, float]]
    left_out: Mapping[str, float]

    @property
    def total(self) -> float:
        """Share of the whole task vector's squared norm that was dropped, parameters without factors counted in."""
        kept = sum(norm**2 * (1 - share) for norm, share in self.modules.values())
        whole = self.squared_norm
        return 1 - kept / whole if whole > 0 else 0.0

    @property
    def squared_norm(self) -> float:
        """Squared norm of the whole task vector."""
        return sum(norm**2 for norm, _ in self.modules.values()) + sum(norm**2 for norm in self.left_out.values())

    def summary(self, name: str, table: str) -> str:
        """One line: the dropped share on average, at its worst and in all."""
        shares = {module: share for module, (_, share) in self.modules.items()}
        worst = max(shares, key=shares.__getitem__)
        whole = self.squared_norm
        outside = sum(norm**2 for norm in self.left_out.values()) / whole if whole > 0 else 0.0
        return (
            f"{name}: factors of rank {self.rank} drop {sum(shares.values()) / len(shares):.1%} of a layer's squared "
            f"norm on average, at most {shares[worst]:.1%} ({worst}); {outside:.1%} of the whole lies in parameters "
            f"without factors, {self.total:.1%} is dropped in all; by layer: {table}"
        )

    def lines(self) -> list[str]:
        """One line a module: the norm of its update, and the share of its square that was dropped."""
        return [f"  {module}: norm {norm:.3g}, {share:.1%} dropped" for module, (norm, share) in self.modules.items()]

    def document(self) -> dict[str, object]:
        """State for json."""
        shares = {module: share for module, (_, share) in self.modules.items()}
        worst = max(shares, key=shares.__getitem__)
        return {
            "rank": self.rank,
            "dropped_share": {
                "mean_of_layers": sum(shares.values()) / len(shares),
                "worst": [worst, shares[worst]],
                "whole_task_vector": self.total,
            },
            "layers": {
                module: {"norm": norm, "dropped_share": share} for module, (norm, share) in self.modules.items()
            },
            "without_factors": dict(self.left_out),
        }


def factorise(
    names: list[str],
    tensor: Callable[[str], Tensor],
    modules: Mapping[str, nn.Module],
    rank: int,
    *,
    device: torch.device | None = None,
) -> tuple[dict[str, LowRankUpdate], DroppedNorm]:
    """Truncate a task vector, one module at a time.

    Args:
        names: what the vector updates: modules (their weight) and parameters.
        tensor: name -> dense update.
        modules: linear layers that get factors; the vector updates all of them.
        rank: of the factors; no more than the largest layer allows.
        device: where the SVD is computed; none: the processor.
    """
    rank = min(rank, max(min(linear_shape(linear)) for linear in modules.values()))
    updates: dict[str, LowRankUpdate] = {}
    dropped: dict[str, tuple[float, float]] = {}
    for name in modules:
        found = best_factors(tensor(name).to(device or "cpu"), rank, seed=module_seed(name, 0))
        updates[name] = found.update
        share = found.squared_dropped / found.squared_norm if found.squared_norm > 0 else 0.0
        dropped[name] = (found.squared_norm**0.5, share)
    left_out = {name: float(tensor(name).double().norm()) for name in names if name not in modules}
    return updates, DroppedNorm(rank, dropped, left_out)
