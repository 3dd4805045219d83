"""Task vectors, exact and factored: tau[W] = (alpha / r) B A for every adapted module W.

Arithmetic is always on the true update B A. Adding factors instead, as PEFT's `linear`, `ties` and `dare_*` merges do,
is off by about the size of the update itself, because (B1 + B2)(A1 + A2) has cross terms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alignx.errors import ArtifactError
from alignx.models.layers import linear_shape
from alignx.models.low_rank import LowRankUpdate
from alignx.runs.files import read_tensors
from alignx.stage1.adapter_config import read_lora_settings

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class TaskVector:
    """Updates of all adapted modules, by module name."""

    updates: dict[str, LowRankUpdate]

    def scaled(self, factor: float) -> "TaskVector":
        """Factor * tau; -1 negates the behaviour that was learned."""
        return TaskVector({name: LowRankUpdate(u.a, u.b, u.scale * factor) for name, u in self.updates.items()})

    def inner(self, other: "TaskVector") -> float:
        """Inner product over all modules, exact."""
        return sum(update.inner(other.updates[name]) for name, update in self.updates.items())

    def norm(self) -> float:
        """Frobenius norm over all modules."""
        return math.sqrt(max(self.inner(self), 0.0))

    def cosine(self, other: "TaskVector") -> float:
        """Cosine with another task vector, in [-1, 1]; 0 when either is zero."""
        product = self.norm() * other.norm()
        return self.inner(other) / product if product > 0 else 0.0


def add(task_vectors: Sequence[TaskVector], weights: Sequence[float]) -> TaskVector:
    """sum_i weights_i tau_i, exact: factors are concatenated, so ranks add up.

    Raises:
        ValueError: counts differ, nothing given, or the modules differ.
    """
    if not task_vectors or len(task_vectors) != len(weights):
        raise ValueError(f"{len(task_vectors)} task vectors with {len(weights)} weights; give one weight for each")
    names = task_vectors[0].updates.keys()
    if any(vector.updates.keys() != names for vector in task_vectors):
        raise ValueError("task vectors adapt different modules; train them with the same target_modules")
    return TaskVector(
        {
            name: LowRankUpdate(
                torch.cat([vector.updates[name].a for vector in task_vectors]),
                torch.cat(
                    [
                        vector.updates[name].b * (weight * vector.updates[name].scale)
                        for vector, weight in zip(task_vectors, weights, strict=True)
                    ],
                    dim=1,
                ),
                1.0,
            )
            for name in names
        }
    )


def ties(updates: Sequence[Tensor], *, density: float = 0.2, weights: Sequence[float] | None = None) -> Tensor:
    """TIES merge of one module's dense updates: trim, elect sign, disjoint mean.

    Args:
        updates: (out, in) each.
        density: share of entries kept by magnitude in each update, in (0, 1].
        weights: one a task; none: all 1.

    Returns:
        (out, in): the weighted mean, over the tasks that agree with the elected sign, of their kept entries.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1, applied module by module.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density {density} must be in (0, 1]")
    stacked = torch.stack([_trim(update, density) for update in updates])  # (m, out, in)
    scale = torch.ones(len(updates)) if weights is None else torch.tensor(weights, dtype=torch.float32)
    scale = scale.view(-1, *[1] * (stacked.dim() - 1))
    weighted = stacked * scale
    sign = torch.sign(weighted.sum(dim=0))
    agrees = (torch.sign(weighted) == sign) & (stacked != 0)
    total = (scale.abs() * agrees).sum(dim=0)
    return (weighted * agrees).sum(dim=0) / total.clamp_min(1e-12)


def dare(
    updates: Sequence[Tensor], weights: Sequence[float], *, density: float = 0.5, generator: torch.Generator
) -> Tensor:
    """DARE merge of one module's dense updates: drop at random, rescale the rest, weighted sum.

    Args:
        updates: (out, in) each.
        weights: one a task.
        density: share of entries kept, in (0, 1].
        generator: source of the drops.

    Source: Yu et al. 2024, arXiv:2311.03099, section 3.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density {density} must be in (0, 1]")
    merged = torch.zeros_like(updates[0])
    for update, weight in zip(updates, weights, strict=True):
        keep = torch.rand(update.shape, generator=generator) < density
        merged += weight * update * keep / density
    return merged


def _trim(update: Tensor, density: float) -> Tensor:
    n_kept = max(1, round(density * update.numel()))
    kept = update.abs().flatten().topk(n_kept).indices
    trimmed = torch.zeros_like(update).flatten()
    trimmed[kept] = update.flatten()[kept]
    return trimmed.view_as(update)


def read_task_vector(adapter_folder: Path, modules: Mapping[str, nn.Module] | None = None) -> TaskVector:
    """Read a PEFT LoRA adapter as a task vector.

    Args:
        adapter_folder: folder with `adapter_config.json` and `adapter_model.safetensors`.
        modules: the base's adapted modules; when given, names and shapes must fit them exactly.

    Raises:
        ArtifactError: missing or damaged files, other kinds of adapter, or an adapter of another base.
    """
    settings = read_lora_settings(adapter_folder)
    path = adapter_folder / "adapter_model.safetensors"
    tensors = read_tensors(path)
    updates: dict[str, LowRankUpdate] = {}
    for key in sorted(tensors):
        name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        if not key.endswith(".lora_A.weight"):
            continue
        a, b = tensors[key], tensors.get(key.removesuffix("lora_A.weight") + "lora_B.weight")
        if b is None:
            raise ArtifactError(f"{adapter_folder}: `{key}` has no lora_B; the adapter is incomplete, train it again")
        if not (a.is_floating_point() and b.is_floating_point() and a.dim() == b.dim() == 2):
            raise ArtifactError(
                f"{path}: `{name}` is {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}, not two matrices of "
                "floating-point numbers; train it again"
            )
        if not a.shape[0] == b.shape[1] == settings.rank:
            raise ArtifactError(
                f"{adapter_folder}: `{name}` has another rank than the settings' {settings.rank}; train it again"
            )
        updates[name] = LowRankUpdate(a, b, settings.scale)
    if not updates or len(tensors) != 2 * len(updates):
        raise ArtifactError(f"{adapter_folder}: holds tensors that are not LoRA factors; train it with `alignx stage1`")
    if modules is not None:
        _check_fit(adapter_folder, updates, modules)
    return TaskVector(updates)


def _check_fit(folder: Path, updates: Mapping[str, LowRankUpdate], modules: Mapping[str, nn.Module]) -> None:
    stray = sorted(updates.keys() ^ modules.keys())
    if stray:
        raise ArtifactError(
            f"{folder}: made for another base: `{stray[0]}` and {len(stray) - 1} more modules are not in both; "
            "retrain the adapter on this base"
        )
    for name, update in updates.items():
        rows, columns = linear_shape(modules[name])
        if update.a.shape[1] != columns or update.b.shape[0] != rows:
            raise ArtifactError(
                f"{folder}: `{name}` updates a {update.b.shape[0]} x {update.a.shape[1]} layer, the base has "
                f"{rows} x {columns}; retrain the adapter on this base"
            )
