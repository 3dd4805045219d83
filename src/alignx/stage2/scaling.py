"""The common unit of the calibrators' scores: centred over axes, divided by a scale fitted once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["centre_over_axes", "fitted_scale"]

SMALLEST_SCALE = 1e-6


def centre_over_axes(scores: Tensor) -> Tensor:
    """Take off what a prompt's scores have in common, since only their differences choose an axis.

    Args:
        scores: shape (..., m), one score an axis in the last place.

    Returns:
        Same shape and dtype; every row sums to 0.

    Raises:
        ValueError: there is no axis.
    """
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"centre_over_axes: expected shape (..., m) with m >= 1, got {tuple(scores.shape)}.")
    return scores - scores.mean(dim=-1, keepdim=True)


def fitted_scale(scores: Tensor) -> float:
    """Fit the number that a calibrator's centred scores are divided by: their root mean square.

    Args:
        scores: raw or already centred scores of the calibration split; shape (b, m), b >= 1.

    Returns:
        The root mean square of the centred scores over prompts and axes, never below 1e-6 (one axis, or
        scores that never differ, would give 0).

    Raises:
        ValueError: no rows, or values that are not finite.
    """
    if scores.numel() == 0 or not bool(scores.isfinite().all()):
        raise ValueError(
            f"fitted_scale: expected finite scores of at least one prompt, got shape {tuple(scores.shape)}"
            f"{'' if scores.numel() == 0 else ' with NaN or infinite values'}."
        )
    rms = float(torch.sqrt((centre_over_axes(scores.double()) ** 2).mean()))
    return max(rms, SMALLEST_SCALE)
