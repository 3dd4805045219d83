"""Latent space: the principal directions, a depth at a time, of what all axes' prompts do to the base model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alignx.runs.tensor_schema import Spec, check_tensors
from alignx.stage1.moments import EqualMoments, Moments


@dataclass(frozen=True)
class LatentSpace:
    """A centred, block-scaled projection of hidden states.

    Attributes:
        layers: decoder layers read, ascending; one block each.
        means: (depths, hidden).
        components: one (k_d, hidden) a depth, rows orthonormal.
        block_scales: (depths,) factors that give each block unit RMS over the training prompts.
    """

    layers: tuple[int, ...]
    means: Tensor
    components: tuple[Tensor, ...]
    block_scales: Tensor

    @property
    def widths(self) -> list[int]:
        """Numbers a block."""
        return [int(block.shape[0]) for block in self.components]

    def project(self, states: Tensor, depth: int) -> Tensor:
        """(n, hidden) states at one depth -> (n, k_d) scaled coordinates."""
        coordinates = (states.float() - self.means[depth]) @ self.components[depth].T
        return coordinates * self.block_scales[depth]

    def signature(self, states: Tensor) -> Tensor:
        """(n, depths, hidden) -> phi, (n, sum of block widths)."""
        return torch.cat([self.project(states[:, depth], depth) for depth in range(len(self.layers))], dim=1)

    def block(self, signatures: Tensor, depth: int) -> Tensor:
        """The part of (n, sum of widths) signatures that belongs to one depth; negative counts from the deepest."""
        return signature_blocks(signatures, self.widths)[depth]

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, for safetensors."""
        named = {"layers": torch.tensor(self.layers), "means": self.means, "block_scales": self.block_scales}
        return named | {f"components.{depth}": block for depth, block in enumerate(self.components)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "LatentSpace":
        """Inverse of `tensors`."""
        layers = tuple(int(layer) for layer in tensors["layers"])
        components = tuple(tensors[f"components.{depth}"] for depth in range(len(layers)))
        return cls(layers, tensors["means"], components, tensors["block_scales"])


def checked_latent_space(tensors: Mapping[str, Tensor], path: Path) -> LatentSpace:
    """A latent space from what its file holds; `path` names it in messages.

    Raises:
        ArtifactError: a tensor is missing, not known, or of another dtype or shape than the others ask for.
    """
    depths = tensors["layers"].numel() if "layers" in tensors else 0
    expected: dict[str, Spec] = {
        "layers": (torch.int64, (depths,)),
        "means": (torch.float32, (depths, "hidden")),
        "block_scales": (torch.float32, (depths,)),
    }
    for depth in range(depths):
        expected[f"components.{depth}"] = (torch.float32, (f"width {depth}", "hidden"))
    check_tensors(path, tensors, expected)
    return LatentSpace.from_tensors(tensors)


def signature_blocks(signatures: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """(n, sum of widths) signatures -> one (n, width) block a depth."""
    return torch.split(signatures, list(widths), dim=1)


def fit_latent_space(states_by_axis: Iterable[Iterable[Tensor]], layers: Sequence[int], k: int) -> LatentSpace:
    """Fit the space; every axis weighs the same whatever its number of prompts.

    Args:
        states_by_axis: an axis at a time, its states in batches of (b, depths, hidden); each batch is used once and
            not kept, so memory is two (hidden, hidden) float64 matrices a depth, whatever the number of prompts.
        layers: decoder layers the depths stand for.
        k: directions a depth; fewer when the hidden size or the number of prompts (less one) is smaller.

    Raises:
        ValueError: no axis, or an axis without states.
    """
    pooled = [EqualMoments() for _ in layers]
    for batches in states_by_axis:
        for depth, moments in enumerate(_axis_moments(batches, len(layers))):
            pooled[depth].add(moments)
    means, blocks, scales = [], [], []
    for moments_of_depth in pooled:
        mean, second = moments_of_depth.mean_and_second()
        components, rms = _principal(second, max(1, min(k, second.shape[0], moments_of_depth.n - 1)))
        means.append(mean.float())
        blocks.append(components.float().contiguous())
        scales.append((1.0 / rms.clamp_min(1e-12)).float())
    return LatentSpace(tuple(layers), torch.stack(means), tuple(blocks), torch.stack(scales))


def _axis_moments(batches: Iterable[Tensor], depths: int) -> list[Moments]:
    """One axis's moments, a depth each."""
    moments: list[Moments] = []
    for states in batches:
        moments = moments or [Moments(states.shape[2]) for _ in range(depths)]
        for depth, found in enumerate(moments):
            found.add(states[:, depth])
    if not moments:
        raise ValueError("an axis has no prompt states; give every axis at least one training prompt")
    return moments


def _principal(second: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The leading directions (width, hidden) of a second moment, and the RMS of a coordinate along them."""
    values, vectors = torch.linalg.eigh(second)
    components = vectors[:, -width:].flip(1).T
    # An eigenvector's sign is arbitrary: the largest entry is made positive, so that reruns agree.
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    components = components * torch.where(largest < 0, -1.0, 1.0)
    return components, (values[-width:].clamp_min(0).sum() / width).sqrt()
