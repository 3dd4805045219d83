"""The experts of a run, installed in its base behind gates."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.runs.directory import RunDirectory
from alignx.stage1.experts import SHARED, expert_task_vectors, shared_task_vector
from alignx.stage1.task_vector import TaskVector


def install_experts(
    config: RunConfig, run: RunDirectory, base: BaseModel, *, also: Mapping[str, TaskVector] | None = None
) -> GatedModel:
    """Gate the base with the shared expert (where the run has one), every axis's expert and whatever else is given.

    Args:
        config: the run's config.
        run: the run directory.
        base: loaded base; its linear layers are wrapped until `remove` is called.
        also: further adapters, by name.
    """
    shared = shared_task_vector(config, run, base)
    vectors = ({SHARED: shared} if shared else {}) | expert_task_vectors(config, run, base) | dict(also or {})
    return GatedModel(base.model, {name: vector.updates for name, vector in vectors.items()})


def gate_weights(names: Sequence[str], axes: Sequence[str], pi: Tensor, scale: Tensor) -> Tensor:
    """Weights of all installed adapters from those of the experts.

    Args:
        names: the installed adapters, in order.
        axes: the axes, in the order of `pi`'s columns.
        pi: (b, m) mixture weights.
        scale: (b,) factor on all experts; where it is 0 the shared expert is off too, and the base speaks.

    Returns:
        (b, adapters): experts at scale * pi, the shared expert at 1 (mixing never touches it), others off.
    """
    columns = []
    for name in names:
        if name in axes:
            columns.append(scale * pi[:, list(axes).index(name)])
        elif name == SHARED:
            columns.append((scale.detach() != 0).to(pi))
        else:
            columns.append(torch.zeros_like(scale))
    return torch.stack(columns, dim=1)
