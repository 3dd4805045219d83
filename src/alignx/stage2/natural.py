"""The natural calibrator: how far a prompt lies from each axis's mean, in the metric of their shared spread.

Legend: `b` prompts, `n` training rows, `n_i` of them axis i's, `m` axes, `k` latent numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

__all__ = ["NaturalCalibrator"]

_SMALLEST_EIGENVALUE_RATIO = 1e-12


@dataclass(frozen=True, eq=False)
class NaturalCalibrator:
    """Scores every axis by the Fisher-Rao geometry of Gaussians with their own means and one covariance.

    s_i(x) = -1/2 (x - mu_i)^T Sigma^-1 (x - mu_i): within this family the squared Fisher-Rao distance between
    two members is the squared Mahalanobis distance of their means.

    Attributes:
        means: mu_i; shape (m, k), float64.
        whitening: W with W W^T = Sigma^-1, so that |(x - mu) W| is the Mahalanobis distance; shape (k, k),
            float64.
        counts: n_i, how many rows each mean was taken over; shape (m,), int64.
        shrinkage: how far Sigma was drawn towards a multiple of the identity, in [0, 1].

    Raises:
        ValueError: shapes that do not belong together, values that are not finite, or a shrinkage outside
            [0, 1].

    Source: Rao 1945, Bulletin of the Calcutta Mathematical Society 37, 81 to 91 (the metric); Ledoit and Wolf
    2004, Journal of Multivariate Analysis 88, 365 to 411 (the shrinkage).
    """

    means: Tensor
    whitening: Tensor
    counts: Tensor
    shrinkage: float

    def __post_init__(self) -> None:
        m, k = self.means.shape if self.means.ndim == 2 else (0, 0)
        if m < 1 or self.whitening.shape != (k, k) or self.counts.shape != (m,):
            raise ValueError(
                "NaturalCalibrator: expected means (m, k), whitening (k, k) and counts (m,), got "
                f"{tuple(self.means.shape)}, {tuple(self.whitening.shape)} and {tuple(self.counts.shape)}."
            )
        if not (bool(self.means.isfinite().all()) and bool(self.whitening.isfinite().all())):
            raise ValueError("NaturalCalibrator: means and whitening must be finite.")
        _check_shrinkage(self.shrinkage)

    @classmethod
    def fit(cls, points: Tensor, axis_ids: Tensor, n_axes: int, *, shrinkage: float | None = None) -> Self:
        """Fit the axis means and their shared, shrunk within-axis covariance.

        Every axis weighs 1/m in the covariance, whatever its number of rows (each axis's own covariance
        divides by n_i). Shrinkage draws it towards the identity times its mean variance.

        Args:
            points: train rows of all axes; shape (n, k), any floating dtype.
            axis_ids: the axis of each row, in 0..n_axes-1; shape (n,), an integer dtype.
            n_axes: how many axes there are.
            shrinkage: in [0, 1]; None takes the Ledoit-Wolf optimum, weighted like the covariance. With as
                many rows in every axis this is exactly `sklearn.covariance.LedoitWolf` on the axis-centred
                rows.

        Returns:
            The calibrator, float64, on the device of `points`.

        Raises:
            ValueError: shapes differ, values are not finite, an axis has fewer than two rows, a shrinkage
                outside [0, 1], or a covariance without an inverse (no spread, or too little shrinkage for so
                few rows).
        """
        ids = axis_ids.to(points.device, torch.int64)
        counts = _checked_counts(points, ids, n_axes)
        if shrinkage is not None:
            _check_shrinkage(shrinkage)
        x = points.detach().double()
        weights = 1.0 / (n_axes * counts[ids].double())  # (n,), sums to 1
        means = torch.zeros(n_axes, x.shape[1], dtype=torch.float64, device=x.device).index_add_(0, ids, x)
        means = means / counts[:, None]
        centred = x - means[ids]
        covariance = (centred * weights[:, None]).T @ centred  # (k, k)
        if shrinkage is None:
            shrinkage = _ledoit_wolf_shrinkage(centred, weights, covariance)
        return cls(means, _whitening(_shrunk(covariance, shrinkage), shrinkage), counts, float(shrinkage))

    def scores(self, x: Tensor, *, own_axis: Tensor | None = None) -> Tensor:
        """Score each axis by minus half the squared Mahalanobis distance to its mean.

        Args:
            x: prompts; shape (b, k), any floating dtype.
            own_axis: for a prompt that is itself a training row, the axis it was fitted in: that axis's mean
                is then taken without it, exactly (the covariance stays, so such rows still look a little
                nearer than new ones when n is not far above k); -1 for none. Shape (b,), an integer dtype.
                None means all -1.

        Returns:
            Shape (b, m), <= 0, in nats up to a constant shared by all axes; float64 for float64 prompts, else
            float32.

        Raises:
            ValueError: wrong shapes, values that are not finite, or axes outside -1..m-1.
        """
        return (-0.5 * self._squared(x, own_axis)).to(torch.promote_types(x.dtype, torch.float32))

    def distance(self, x: Tensor, *, own_axis: Tensor | None = None) -> Tensor:
        """Measure how far each prompt lies from the nearest axis mean; large for foreign prompts.

        Args:
            x: prompts; shape (b, k), any floating dtype.
            own_axis: as in `scores`.

        Returns:
            The smallest Mahalanobis distance over axes, >= 0; shape (b,). A prompt of the fitted Gaussian
            itself has a squared distance of about k. float64 for float64 prompts, else float32.

        Raises:
            ValueError: as in `scores`.
        """
        nearest = self._squared(x, own_axis).amin(dim=1).sqrt()
        return nearest.to(torch.promote_types(x.dtype, torch.float32))

    def tensors(self) -> dict[str, Tensor]:
        """Return what has to be stored as tensors: `means`, `whitening` (float64) and `counts` (int64)."""
        return {"means": self.means, "whitening": self.whitening, "counts": self.counts}

    def settings(self) -> dict[str, Any]:
        """Return everything else, as JSON can hold it."""
        return {"shrinkage": self.shrinkage}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Rebuild a calibrator from `tensors()` and `settings()`; its scores are the same bit for bit.

        Args:
            tensors: what `tensors()` gave.
            settings: what `settings()` gave, possibly through JSON.

        Returns:
            The calibrator.

        Raises:
            ValueError: a name is missing, or the values do not make a calibrator.
        """
        try:
            return cls(tensors["means"], tensors["whitening"], tensors["counts"], float(settings["shrinkage"]))
        except KeyError as error:
            raise ValueError(f"NaturalCalibrator: the stored state lacks {error}; fit the calibrator again.") from error

    def _squared(self, x: Tensor, own_axis: Tensor | None) -> Tensor:
        """Compute squared Mahalanobis distances to every mean; shape (b, m), float64."""
        m, k = self.means.shape
        if x.ndim != 2 or x.shape[1] != k or not x.is_floating_point():
            raise ValueError(
                f"NaturalCalibrator: expected floating-point prompts of shape (b, {k}), got {x.dtype} {tuple(x.shape)}."
            )
        if not bool(x.isfinite().all()):
            raise ValueError("NaturalCalibrator: the prompts hold NaN or infinite values; check the hidden states.")
        queries = x.to(self.means.device, torch.float64)
        # Whitened after the difference is taken: the other order cancels when the data lie far from zero.
        squared = torch.stack([((queries - mean) @ self.whitening).square().sum(dim=1) for mean in self.means], dim=1)
        if own_axis is None:
            return squared
        own = own_axis.to(self.means.device, torch.int64)
        if own.shape != (x.shape[0],) or bool(((own < -1) | (own >= m)).any()):
            raise ValueError(
                f"NaturalCalibrator: own_axis must hold one axis in -1..{m - 1} a prompt, shape ({x.shape[0]},)."
            )
        # x - mean without x = n / (n - 1) (x - mean), so its square grows by that factor squared.
        grown = (self.counts / (self.counts - 1)).square()  # (m,)
        is_own = torch.arange(m, device=own.device) == own[:, None]  # (b, m)
        return torch.where(is_own, squared * grown, squared)


def _ledoit_wolf_shrinkage(centred: Tensor, weights: Tensor, covariance: Tensor) -> float:
    """Find the shrinkage of least expected squared error, for rows that weigh differently.

    Args:
        centred: rows less their axis mean; shape (n, k).
        weights: weight of each row, summing to 1; shape (n,).
        covariance: the weighted mean of the rows' outer products; shape (k, k).

    Returns:
        The Ledoit-Wolf shrinkage, in [0, 1]; with equal weights their own formula.
    """
    k = covariance.shape[0]
    squared_norm = covariance.square().sum()
    target = covariance.diagonal().mean()
    delta = squared_norm - k * target**2  # |S - mu I|^2
    # sum of w^2 |x x^T - S|^2, the variance of S: |x|^4 - 2 x^T S x + |S|^2 for each row.
    fourth = centred.square().sum(dim=1).square()
    cross = ((centred @ covariance) * centred).sum(dim=1)
    beta = (weights.square() * (fourth - 2 * cross + squared_norm)).sum()
    if float(delta) <= 0:  # already a multiple of the identity
        return 0.0
    return float((beta / delta).clamp(0.0, 1.0))


def _shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    k = covariance.shape[0]
    identity = torch.eye(k, dtype=covariance.dtype, device=covariance.device)
    return (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().mean() * identity


def _whitening(covariance: Tensor, shrinkage: float) -> Tensor:
    """Factor the inverse of a covariance as W W^T, or say why it has none."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    largest = float(eigenvalues[-1])
    if largest <= 0:
        raise ValueError(
            "NaturalCalibrator: the rows of every axis are all alike, so there is no spread to measure by. "
            "Check that the signatures were not all computed alike."
        )
    if float(eigenvalues[0]) <= _SMALLEST_EIGENVALUE_RATIO * largest:
        raise ValueError(
            f"NaturalCalibrator: with shrinkage {shrinkage:g} the covariance has no inverse (too few rows, "
            "or directions without spread). Pass a larger shrinkage, or None to have it estimated."
        )
    whitening: Tensor = vectors * eigenvalues.rsqrt()
    return whitening


def _checked_counts(points: Tensor, ids: Tensor, n_axes: int) -> Tensor:
    if points.ndim != 2 or points.shape[1] < 1 or not points.is_floating_point() or ids.shape != points.shape[:1]:
        raise ValueError(
            "NaturalCalibrator: expected floating-point rows (n, k) and one axis id a row (n,), got "
            f"{points.dtype} {tuple(points.shape)} and {tuple(ids.shape)}."
        )
    if n_axes < 1 or bool(((ids < 0) | (ids >= n_axes)).any()):
        raise ValueError(f"NaturalCalibrator: need n_axes >= 1 and axis ids in 0..{n_axes - 1}.")
    if not bool(points.isfinite().all()):
        raise ValueError("NaturalCalibrator: the rows hold NaN or infinite values; check the hidden states.")
    counts = torch.bincount(ids, minlength=n_axes)
    short = {axis: n for axis, n in enumerate(counts.tolist()) if n < 2}
    if short:
        raise ValueError(f"NaturalCalibrator: every axis needs at least two rows, but (axis: rows) {short}.")
    return counts


def _check_shrinkage(shrinkage: float) -> None:
    if not (math.isfinite(shrinkage) and 0 <= shrinkage <= 1):
        raise ValueError(f"NaturalCalibrator: shrinkage must lie in [0, 1], got {shrinkage}.")
