"""Experts whole: how prompts that share one mixture are run.

LoRA experts are exact behind gates, whatever the mixture. Behind gates a fully fine-tuned expert is only what its
factors keep, so where all prompts share one mixture its dense update is folded into the base instead, which is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.models.fold import Updates, weighted_updates
from alignx.models.load import BaseModel
from alignx.runs.directory import RunDirectory
from alignx.stage1.experts import expert_updates, shared_updates
from alignx.stage2.experts import gate_weights
from alignx.stage2.merges import Merge, merged_updates


@dataclass(frozen=True)
class WholeExperts:
    """The whole updates of a run's experts.

    Attributes:
        by_axis: axis -> update of everything its training changed.
        shared: the shared expert's; empty when there is none.
        run_folded: whether gates would leave something out, so that fixed mixtures are folded.
    """

    by_axis: Mapping[str, Updates]
    shared: Updates
    run_folded: bool

    def mixture(self, coefficients: Mapping[str, float]) -> Updates:
        """Shared expert plus weighted sum of the experts; axes that are not named have coefficient 0."""
        return weighted_updates([(1.0, self.shared), *((c, self.by_axis[axis]) for axis, c in coefficients.items())])


def read_whole_experts(config: RunConfig, run: RunDirectory, base: BaseModel) -> WholeExperts:
    """The whole updates of a run; dense ones stay on disk until they are used.

    Raises:
        ArtifactError: missing, damaged or of another base.
    """
    return WholeExperts(
        {axis: expert_updates(config, run, base, axis) for axis in config.axes},
        shared_updates(config, run, base),
        config.stage1.method == "full",
    )


def fixed_form(
    whole: WholeExperts, names: Sequence[str], coefficients: Mapping[str, float], n: int
) -> tuple[Tensor, Updates]:
    """One mixture for n prompts, with the shared expert on.

    Args:
        whole: the experts.
        names: the adapters installed behind gates, in order.
        coefficients: axis -> factor on its expert; axes that are not named have 0.
        n: prompts.

    Returns:
        Gates (n, adapters) float32, and what is to be folded meanwhile: of the two, one is zero or empty.
    """
    if whole.run_folded:
        return torch.zeros(n, len(names)), whole.mixture(coefficients)
    axes = list(whole.by_axis)
    row = torch.tensor([coefficients.get(axis, 0.0) for axis in axes], dtype=torch.float64)
    return gate_weights(names, axes, row.expand(n, -1), torch.ones(n, dtype=torch.float64)).float(), {}


def merge_form(whole: WholeExperts, names: Sequence[str], merge: Merge, n: int) -> tuple[Tensor, Updates]:
    """A static merge for n prompts, as `fixed_form`; what is no weighted sum is folded whatever the experts are."""
    if merge.is_weighted_sum:
        return fixed_form(whole, names, dict.fromkeys(whole.by_axis, merge.coefficient), n)
    weights, below = fixed_form(whole, names, {}, n)
    return weights, weighted_updates([(1.0, below), (1.0, merged_updates(merge, whole.by_axis))])
