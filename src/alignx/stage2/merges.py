"""Static merges: the editing methods that MoCaE is compared with. The same weights, whatever the prompt.

All act on the axes' own task vectors; the shared expert, where a run has one, stays on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignx.config import MERGE_NAMES, MergeName
from alignx.errors import ConfigError
from alignx.models.fold import Updates
from alignx.stage1.parameter_matrix import module_seed
from alignx.stage1.task_vector import dare, ties

# Coefficients tried on the mix split by the methods that leave theirs to a validation set.
COEFFICIENTS: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0, 1.5)
TIES_DENSITY = 0.2  # Yadav et al. 2023, section 4: top 20%
DARE_DENSITY = 0.5
# Seeds of DARE's drops, from the run's own on; the others are what they are.
DARE_SEEDS = 3


@dataclass(frozen=True)
class Merge:
    """A static merge.

    Attributes:
        method: one of `MERGE_NAMES`.
        coefficient: factor on the merged update; for `uniform` and `negate` the share of each expert, with its sign.
        seed: of DARE's drops.
        mix_loss: nats a target token on the mix split by coefficient tried; empty where nothing is chosen.
    """

    method: MergeName
    coefficient: float
    seed: int = 0
    mix_loss: Mapping[str, float] | None = None

    @property
    def is_weighted_sum(self) -> bool:
        """Whether the merge is a weighted sum of experts, which gates can run."""
        return self.method in {"uniform", "task-arithmetic", "negate"}

    @property
    def repeats(self) -> "tuple[Merge, ...]":
        """The merge at every seed that it is scored at, at one coefficient; only DARE draws anything."""
        n_seeds = DARE_SEEDS if self.method == "dare" else 1
        return tuple(replace(self, seed=self.seed + number) for number in range(n_seeds))

    def settings(self) -> dict[str, Any]:
        """State for json."""
        document: dict[str, Any] = {"method": self.method, "coefficient": self.coefficient, "seed": self.seed}
        if self.method == "ties":
            document["density"] = TIES_DENSITY
        if self.method == "dare":
            document |= {"density": DARE_DENSITY, "seeds": [merge.seed for merge in self.repeats]}
        return document | {"mix_loss": dict(self.mix_loss or {})}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Merge":
        """Inverse of `settings`."""
        return cls(
            checked_merge(settings["method"]),
            float(settings["coefficient"]),
            int(settings["seed"]),
            dict(settings.get("mix_loss") or {}),
        )


def checked_merge(method: str) -> MergeName:
    """A merge's name.

    Raises:
        ConfigError: there is none of that name.
    """
    for known in MERGE_NAMES:
        if known == method:
            return known
    raise ConfigError(f"unknown method `{method}`; give mocae or one of {', '.join(MERGE_NAMES)}")


def merged_updates(merge: Merge, experts: Mapping[str, Updates]) -> Updates:
    """A merge's dense update of everything that the experts update, made one at a time when called."""
    vectors = list(experts.values())

    def update(name: str) -> Tensor:
        dense = [vector[name]() for vector in vectors]
        if merge.method == "ties":
            return merge.coefficient * ties(dense, density=TIES_DENSITY)
        if merge.method == "dare":
            generator = torch.Generator().manual_seed(module_seed(name, merge.seed))
            return dare(dense, [merge.coefficient] * len(dense), density=DARE_DENSITY, generator=generator)
        return merge.coefficient * torch.stack(dense).sum(dim=0)

    return {name: partial(update, name) for name in vectors[0]}
