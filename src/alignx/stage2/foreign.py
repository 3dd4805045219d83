"""Knowing when no expert applies: how far a prompt lies from everything the axes were trained on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignx.stage2.fractal import FractalCalibrator
from alignx.stage2.natural import NaturalCalibrator


@dataclass(frozen=True)
class ForeignDetector:
    """One p-value a prompt, from two distances at one depth.

    Attributes:
        depth: index of the block of the signature that is read.
        fractal: gives the pooled anchor radius.
        natural: gives the smallest Fisher-Rao distance to an axis.
        centre: (2,) mean of the two distances on the mix split.
        spread: (2,) their standard deviation there.
        reference: scores of the calibration split, ascending.
        auroc: by depth, on calibration prompts against the foreign development set.
    """

    depth: int
    fractal: FractalCalibrator
    natural: NaturalCalibrator
    centre: Tensor
    spread: Tensor
    reference: Tensor
    auroc: tuple[float, ...]

    def scores(self, x: Tensor) -> Tensor:
        """(n, k) coordinates at the detector's depth -> (n,) scores, larger is more foreign."""
        distances = _raw_distances(self.natural, self.fractal, x)
        return ((distances - self.centre) / self.spread).amax(dim=1)

    def p_values(self, x: Tensor) -> Tensor:
        """(n, k) -> (n,) share of calibration prompts at least as foreign, in (0, 1]; conformal."""
        scores = self.scores(x)
        n = len(self.reference)
        at_least = n - torch.searchsorted(self.reference, scores.contiguous())
        return (1 + at_least).double() / (n + 1)

    def known(self, x: Tensor, p_low: float, p_high: float) -> Tensor:
        """(n, k) -> g, (n,): smoothstep of log p between the two p-values; 0 is foreign, 1 is known."""
        low, high = math.log(p_low), math.log(p_high)
        t = ((self.p_values(x).log() - low) / (high - low)).clamp(0, 1)
        return t * t * (3 - 2 * t)

    def tensors(self) -> dict[str, Tensor]:
        """State for safetensors."""
        own = {"centre": self.centre, "spread": self.spread, "reference": self.reference}
        parts = {f"fractal.{name}": tensor for name, tensor in self.fractal.tensors().items()}
        return own | parts | {f"natural.{name}": tensor for name, tensor in self.natural.tensors().items()}

    def settings(self) -> dict[str, Any]:
        """State for json."""
        return {
            "depth": self.depth,
            "auroc": list(self.auroc),
            "fractal": self.fractal.settings(),
            "natural": self.natural.settings(),
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> "ForeignDetector":
        """Inverse of `tensors` and `settings`."""
        return cls(
            int(settings["depth"]),
            FractalCalibrator.from_state(with_prefix(tensors, "fractal."), settings["fractal"]),
            NaturalCalibrator.from_state(with_prefix(tensors, "natural."), settings["natural"]),
            tensors["centre"],
            tensors["spread"],
            tensors["reference"],
            tuple(settings["auroc"]),
        )


def fit_detector(
    natural: NaturalCalibrator,
    fractal: FractalCalibrator,
    depth: int,
    *,
    mix: Tensor,
    calibration: Tensor,
) -> ForeignDetector:
    """Standardise on the mix split, take p-values on the calibration split; both (n, k) at this depth."""
    distances = _raw_distances(natural, fractal, mix)
    spread = distances.std(dim=0, correction=0).clamp_min(1e-6)
    blank = ForeignDetector(depth, fractal, natural, distances.mean(dim=0), spread, torch.zeros(0), ())
    reference = blank.scores(calibration).sort().values
    return ForeignDetector(depth, fractal, natural, blank.centre, blank.spread, reference, ())


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _raw_distances(natural: NaturalCalibrator, fractal: FractalCalibrator, x: Tensor) -> Tensor:
    return torch.stack([natural.distance(x).double(), fractal.pooled_radius(x).double()], dim=1)
