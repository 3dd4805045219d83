"""Spearman's rank correlation: whether one number rises with another, whatever the shape of the curve."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["average_ranks", "spearman"]


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks.

    Args:
        values: finite numbers; shape (..., n), ranked along the last axis.

    Example:
        >>> average_ranks([10.0, 30.0, 10.0]).tolist()
        [1.5, 3.0, 1.5]
    """
    column = np.asarray(values, dtype=np.float64)
    below = (column[..., None, :] < column[..., :, None]).sum(axis=-1)
    equal = (column[..., None, :] == column[..., :, None]).sum(axis=-1)
    ranks: NDArray[np.float64] = below + (equal + 1) / 2
    return ranks


def spearman(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Pearson's correlation of the ranks; NaN where x or y does not vary.

    Args:
        x: shape (n,), n >= 2.
        y: shape (..., n): one or many series against the same x.

    Returns:
        Shape (...), in [-1, 1].

    Raises:
        ValueError: fewer than two points, or other shapes.

    Source: Spearman 1904; with ties as in Kendall 1948, Rank Correlation Methods, chapter 3.

    Example:
        >>> float(spearman([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.9]))
        0.8
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or len(first) < 2 or second.shape[-1:] != first.shape:
        raise ValueError(f"x must have shape (n,), n >= 2, and y (..., n); got {first.shape} and {second.shape}.")
    ranks = [average_ranks(column) for column in (first, second)]
    a, b = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounded where a double has no more to say, so that a monotone series gives 1 and not 1 - 1e-16.
        return np.asarray(np.round((a * b).sum(axis=-1) / size, 12))
