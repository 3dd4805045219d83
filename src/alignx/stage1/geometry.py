"""How task vectors lie to each other: norms, cosines and the angles between the subspaces they act on.

b modules, m vectors, k directions of a subspace.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.task_vector import TaskVector
from alignx.stage1.truncate import thin_svd
from alignx.stage1.vector_source import VectorSource, check_same_base

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class VectorGeometry:
    """Inner products of task vectors, exact, by module.

    Attributes:
        labels: the m vectors, in order.
        modules: the b updated modules (of dense vectors also other parameters).
        inner: (b, m, m) Frobenius inner products of the updates, float64.
    """

    labels: tuple[str, ...]
    modules: tuple[str, ...]
    inner: Tensor

    def norms(self) -> list[float]:
        """Norm of every vector over all modules."""
        return _norms(self.inner.sum(dim=0))

    def cosines(self) -> list[list[float]]:
        """(m, m) cosines over all modules; 0 where a vector is zero."""
        return cosines_of(self.inner.sum(dim=0))

    def norms_by(self, group: Callable[[str], str | None]) -> dict[str, list[float]]:
        """Norms of every vector over the modules of each group, in order of first appearance; None joins none."""
        members: dict[str, list[int]] = {}
        for at, module in enumerate(self.modules):
            key = group(module)
            if key is not None:
                members.setdefault(key, []).append(at)
        return {key: _norms(self.inner[at].sum(dim=0)) for key, at in members.items()}


def measure_vectors(sources: Sequence[VectorSource]) -> VectorGeometry:
    """Inner products of task vectors: of low-rank ones from their factors, else from one dense update at a time.

    Raises:
        ArtifactError: they update different parameters.
    """
    check_same_base(sources, trust=True)
    low_rank = [source.vector for source in sources if isinstance(source.vector, TaskVector)]
    modules = sorted(sources[0].names(), key=_natural)
    rows = []
    for name in modules:
        if len(low_rank) == len(sources):
            updates = [vector.updates[name] for vector in low_rank]
            rows.append(torch.tensor([[one.inner(other) for other in updates] for one in updates], dtype=torch.float64))
        else:
            flat = torch.stack([source.tensor(name).flatten() for source in sources]).double()
            rows.append(flat @ flat.T)
    return VectorGeometry(tuple(source.label for source in sources), tuple(modules), torch.stack(rows))


def cosines_of(inner: Tensor) -> list[list[float]]:
    """(m, m) inner products -> cosines in [-1, 1]; 0 where a vector is zero."""
    norms = _norms(inner)
    return [
        [
            max(-1.0, min(1.0, float(inner[row, column]) / (one * other))) if one * other > 0 else 0.0
            for column, other in enumerate(norms)
        ]
        for row, one in enumerate(norms)
    ]


def kind_of(module: str) -> str:
    """`q_proj` of `model.layers.3.self_attn.q_proj`."""
    return module.rsplit(".", 1)[-1]


def layer_of(module: str) -> str | None:
    """`3` of `model.layers.3.self_attn.q_proj`; none outside the layers."""
    found = _LAYER.search(f"{module}.")
    return found.group(1) if found else None


def update_subspaces(update: LowRankUpdate) -> dict[str, Tensor]:
    """Orthonormal bases of what an update reads and writes.

    Returns:
        `input`: (in, k) spans its row space; `output`: (out, k) its column space. k is its numerical rank, 0 for a
        zero update.
    """
    left, values, right = thin_svd(update)
    k = numerical_rank(values, max(left.shape[0], right.shape[0]))
    return {"input": right[:, :k], "output": left[:, :k]}


def main_directions(rows: Tensor, share: float) -> Tensor:
    """The fewest principal directions of a cloud of points that hold a share of its variance.

    Args:
        rows: (n, d) points; centred here.
        share: of the variance, in (0, 1].

    Returns:
        (d, k), columns orthonormal; k is 0 when all points coincide.

    Raises:
        ValueError: share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share} must be in (0, 1]")
    centred = rows.double() - rows.double().mean(dim=0)
    found: tuple[Tensor, Tensor, Tensor] = torch.linalg.svd(centred, full_matrices=False)
    _, values, right_t = found
    rank = numerical_rank(values, max(rows.shape))
    if rank == 0:
        return right_t[:0].T
    held = values.square().cumsum(dim=0) / values.square().sum()
    k = int((held < share - 1e-12).sum()) + 1
    return right_t[: min(k, rank)].T


def numerical_rank(values: Tensor, size: int) -> int:
    """Singular values that are not rounding: float32 factors are exact to about size * 6e-8 of the largest."""
    return int((values > values[:1].sum() * size * torch.finfo(torch.float32).eps).sum())


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """Angles between two subspaces, ascending, in radians within [0, pi/2].

    Args:
        one: (d, k1), columns orthonormal.
        other: (d, k2), likewise.

    Returns:
        (min(k1, k2),) float64. Small angles come from sines: cosines near 1 cannot tell them apart.

    Source: Bjorck and Golub 1973, Numerical methods for computing angles between linear subspaces, algorithm 1.
    """
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    products = one.T @ other
    cosines = torch.linalg.svdvals(products).clamp(0, 1)
    sines = torch.linalg.svdvals(other - one @ products).flip(0).clamp(0, 1)
    return torch.where(cosines.square() > 0.5, torch.arcsin(sines), torch.arccos(cosines))


@dataclass(frozen=True)
class SubspaceAngles:
    """Principal angles of two vectors' subspaces, module by module, in degrees.

    Attributes:
        mean: over all angles of all modules.
        smallest: of all.
        overlap: mean squared cosine, the share of one subspace that lies in the other; 0 orthogonal, 1 contained.
        chance: what overlap random subspaces of these sizes have on average.
        curve: the i-th smallest angle, averaged over modules, for all i that every module has.
    """

    mean: float
    smallest: float
    overlap: float
    chance: float
    curve: tuple[float, ...]


def summarise_angles(pairs: Sequence[tuple[Tensor, Tensor]]) -> SubspaceAngles | None:
    """Angles between pairs of subspaces, one pair a module; none when no pair has a direction on both sides."""
    pairs = [(one, other) for one, other in pairs if one.shape[1] and other.shape[1]]
    if not pairs:
        return None
    angles = [principal_angles(one, other) for one, other in pairs]
    every = torch.cat(angles)
    # A random k-dimensional subspace of d dimensions holds k/d of any direction's square on average.
    chance = torch.cat(
        [
            torch.full((len(found),), max(one.shape[1], other.shape[1]) / one.shape[0])
            for (one, other), found in zip(pairs, angles, strict=True)
        ]
    )
    common = min(map(len, angles))
    curve = torch.stack([found[:common] for found in angles]).mean(dim=0)
    return SubspaceAngles(
        mean=math.degrees(float(every.mean())),
        smallest=math.degrees(float(every.min())),
        overlap=float(every.cos().square().mean()),
        chance=float(chance.mean()),
        curve=tuple(math.degrees(float(angle)) for angle in curve),
    )


def update_angles(vectors: Mapping[str, TaskVector]) -> dict[tuple[str, str], dict[str, SubspaceAngles | None]]:
    """For every pair of task vectors the angles between their `input` and between their `output` subspaces."""
    labels = list(vectors)
    bases = {
        label: [update_subspaces(vector.updates[name]) for name in sorted(vector.updates)]
        for label, vector in vectors.items()
    }
    return {
        (one, other): {
            side: summarise_angles([(a[side], b[side]) for a, b in zip(bases[one], bases[other], strict=True)])
            for side in ("input", "output")
        }
        for at, one in enumerate(labels)
        for other in labels[at + 1 :]
    }


def _norms(inner: Tensor) -> list[float]:
    return [math.sqrt(max(float(value), 0.0)) for value in inner.diagonal()]


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts layer 10 after layer 9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]
