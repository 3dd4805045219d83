"""Knowing when no expert applies: how far a prompt lies from everything the axes were trained on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
        auroc: by depth, on calibration prompts against foreign development prompts of kinds that were held out.
        foreign: (f, k) foreign development prompts: the second distance is the log of the pooled anchor radius over
            the radius among these. None: the pooled anchor radius alone.
    """

    depth: int
    fractal: FractalCalibrator
    natural: NaturalCalibrator
    centre: Tensor
    spread: Tensor
    reference: Tensor
    auroc: tuple[float, ...]
    foreign: Tensor | None = None

    def scores(self, x: Tensor) -> Tensor:
        """(n, k) coordinates at the detector's depth -> (n,) scores, larger is more foreign."""
        distances = _raw_distances(self.natural, self.fractal, self.foreign, x)
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
        own |= {} if self.foreign is None else {"foreign": self.foreign}
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
            tensors.get("foreign"),
        )


def fit_detector(
    natural: NaturalCalibrator,
    fractal: FractalCalibrator,
    depth: int,
    *,
    mix: Tensor,
    calibration: Tensor,
    foreign: Tensor | None = None,
) -> ForeignDetector:
    """Standardise on the mix split, take p-values on the calibration split; all (n, k) at this depth."""
    kept = None if foreign is None else foreign.detach().float().clone()
    distances = _raw_distances(natural, fractal, kept, mix)
    spread = distances.std(dim=0, correction=0).clamp_min(1e-6)
    blank = ForeignDetector(depth, fractal, natural, distances.mean(dim=0), spread, torch.zeros(0), (), kept)
    return replace(blank, reference=blank.scores(calibration).sort().values)


def held_out_auroc(
    natural: NaturalCalibrator,
    fractal: FractalCalibrator,
    *,
    mix: Tensor,
    calibration: Tensor,
    foreign: Tensor,
    folds: Tensor,
) -> float:
    """How well a depth tells calibration prompts from foreign ones of a kind that the detector has not seen.

    Args:
        natural: at this depth.
        fractal: at this depth.
        mix: (n, k).
        calibration: (n, k).
        foreign: (f, k).
        folds: (f,) kind of each foreign prompt; each is held out in turn.

    Returns:
        AUROC, averaged over the folds.
    """
    found = []
    for fold in sorted(set(folds.tolist())):
        out = folds == fold
        seen = foreign[~out] if bool((~out).any()) else None
        detector = fit_detector(natural, fractal, 0, mix=mix, calibration=calibration, foreign=seen)
        found.append(auroc(detector.scores(foreign[out]), detector.reference))
    return sum(found) / len(found)


def auroc(positives: Tensor, negatives: Tensor) -> float:
    """Probability that a positive scores above a negative, ties half; (n,) and (m,)."""
    difference = positives[:, None] - negatives[None, :]
    return float(((difference > 0).double() + 0.5 * (difference == 0)).mean())


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _raw_distances(natural: NaturalCalibrator, fractal: FractalCalibrator, foreign: Tensor | None, x: Tensor) -> Tensor:
    """(n, 2): smallest natural distance; pooled anchor radius, or how it compares with that among foreign prompts."""
    radius = fractal.pooled_radius(x).double()
    if foreign is not None:
        # Both are radii of balls that hold q points, so their ratio is a density ratio, up to the dimension.
        radius = radius.clamp_min(fractal.epsilon).log() - _foreign_radius(fractal, foreign, x).log()
    return torch.stack([natural.distance(x).double(), radius], dim=1)


def _foreign_radius(fractal: FractalCalibrator, foreign: Tensor, x: Tensor) -> Tensor:
    """(n,) distance to the q-th nearest foreign prompt in the fractal calibrator's units, clipped below at epsilon."""
    exact = torch.cdist(x.double(), foreign.double(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = exact.sort(dim=1).values[:, min(fractal.q, foreign.shape[0]) - 1]
    return (nearest / fractal.scale).clamp_min(fractal.epsilon)
