"""Points on several axes, higher being better on each: dominance, the front, its volume, and the nearest rival.

Legend: n points, m axes, D draws.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["best_match", "hypervolume", "matched_gaps", "pareto_front"]

Points = NDArray[np.float64]


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other beats: none is at least as good on all axes and better on one.

    Args:
        points: shape (n, m).

    Returns:
        Shape (n,); equal points are on the front together.

    Example:
        >>> pareto_front([[1, 0], [0, 1], [0, 0], [1, 0]]).tolist()
        [True, True, False, True]
    """
    values = _checked(points)
    as_good = np.all(values[None, :, :] >= values[:, None, :], axis=2)  # [i, j]: j is as good as i everywhere
    better = np.any(values[None, :, :] > values[:, None, :], axis=2)
    return np.asarray(~np.any(as_good & better, axis=1))


def hypervolume(points: ArrayLike, reference: float = 0.0) -> float:
    """Volume of what the points weakly dominate above a reference corner; 1 for the unit cube's best corner.

    Points count from the reference up on every axis, so one below it on an axis adds nothing there.

    Args:
        points: shape (n, m), m >= 1; n = 0 gives 0.
        reference: the same on every axis.

    Source: Zitzler and Thiele 1998; by slices along the last axis (HSO: While et al. 2006, IEEE Trans. Evol. Comput.).

    Example:
        >>> hypervolume([[1.0, 0.5], [0.5, 1.0]])
        0.75
    """
    values = np.asarray(points, dtype=np.float64)
    if values.size == 0:
        return 0.0
    return _volume(np.clip(_checked(values) - reference, 0.0, None))


def _volume(points: Points) -> float:
    points = np.unique(points[pareto_front(points)], axis=0)
    if points.shape[1] == 1:
        return float(points.max())
    if points.shape[1] == 2:
        # Along the front the first falls as the second rises.
        front = points[np.argsort(-points[:, 0])]
        return float((front[:, 0] * np.diff(front[:, 1], prepend=0.0)).sum())
    order = points[np.argsort(-points[:, -1])]
    thickness = order[:, -1] - np.append(order[1:, -1], 0.0)
    return float(sum(step * _volume(order[: n + 1, :-1]) for n, step in enumerate(thickness) if step > 0))


def matched_gaps(points: ArrayLike, rival: ArrayLike) -> Points:
    """Of each point its least lead over a rival, over the axes; 0 or more where it is at least as good on all.

    Args:
        points: shape (..., n, m).
        rival: shape (..., m).

    Returns:
        Shape (..., n).
    """
    found: Points = (np.asarray(points, dtype=np.float64) - np.asarray(rival, dtype=np.float64)[..., None, :]).min(-1)
    return found


def best_match(points: ArrayLike, rival: ArrayLike) -> tuple[int, float]:
    """The point with the largest least lead over a rival, and that lead.

    A lead of 0 or more says that this point is at least as good on every axis; below 0, the rival is better than every
    point on some axis, by at least so much.

    Args:
        points: shape (n, m), n >= 1.
        rival: shape (m,).

    Example:
        >>> best_match([[1.0, 0.0], [0.6, 0.5]], [0.5, 0.5])
        (1, 0.0)
    """
    gaps = matched_gaps(_checked(points), rival)
    at = int(gaps.argmax())
    return at, float(gaps[at])


def _checked(points: ArrayLike) -> Points:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) == 0 or not bool(np.isfinite(values).all()):
        raise ValueError(f"points must be finite numbers of shape (n, m), n and m at least 1; got {values.shape}.")
    return values
