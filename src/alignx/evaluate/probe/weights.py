"""What mixture weights do for prompts that need several axes, and for requests in disguise."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignx.evaluate.statistics.intervals import bootstrap_interval

# A needed axis counts as served from this share of the mixture.
SERVED = 0.2


def needed_weight(weights: ArrayLike, needed: ArrayLike) -> NDArray[np.float64]:
    """Weight on all needed axes together.

    Args:
        weights: of the axes; shape (n, m).
        needed: which axes each prompt needs, boolean; shape (n, m).

    Returns:
        Shape (n,).

    Example:
        >>> needed_weight([[0.5, 0.3, 0.2]], [[True, False, True]])
        array([0.7])
    """
    total: NDArray[np.float64] = (np.asarray(weights, dtype=np.float64) * np.asarray(needed)).sum(axis=1)
    return total


def smallest_needed(weights: ArrayLike, needed: ArrayLike) -> NDArray[np.float64]:
    """Weight of the needed axis that got least; shapes as `needed_weight`; every prompt needs at least one.

    Example:
        >>> smallest_needed([[0.5, 0.3, 0.2]], [[True, True, False]])
        array([0.3])
    """
    smallest: NDArray[np.float64] = np.where(np.asarray(needed), np.asarray(weights, dtype=np.float64), np.inf).min(
        axis=1
    )
    return smallest


def coverage_table(
    weights: Mapping[str, ArrayLike], needed: ArrayLike, *, against: str, n_draws: int, seed: int
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """How far several sets of weights serve every axis that a prompt needs.

    Args:
        weights: name -> (n, m) weights of the same prompts.
        needed: boolean, at least one a row; shape (n, m).
        against: whose differences to the others are given, paired by prompt.
        n_draws: bootstrap draws.
        seed: of the draws.

    Returns:
        `figures` and `difference`: name -> measure -> `value`, `low`, `high`. Measures: `needed_weight`, only over
        prompts that do not need every axis (for the others it is 1 whatever the weights are) and absent when there
        are none; `smallest_needed`; `all_served`, the share of prompts whose needed axes all get at least 0.2.
    """
    wanted = np.asarray(needed)
    some_left_out = ~wanted.all(axis=1)
    by_name: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, rows in weights.items():
        least = smallest_needed(rows, wanted)
        by_name[name] = {"smallest_needed": least, "all_served": (least >= SERVED).astype(np.float64)}
        if some_left_out.any():
            by_name[name]["needed_weight"] = needed_weight(rows, wanted)[some_left_out]
    ours = by_name[against]
    return {
        "figures": {
            name: {measure: _mean(values, n_draws, seed) for measure, values in measures.items()}
            for name, measures in by_name.items()
        },
        "difference": {
            name: {measure: _mean(ours[measure] - values, n_draws, seed) for measure, values in measures.items()}
            for name, measures in by_name.items()
            if name != against
        },
    }


def weight_summary(weights: Sequence[float]) -> dict[str, float]:
    """How one axis's weight is spread over prompts: least, 5th percentile, median and mean.

    Example:
        >>> weight_summary([0.1, 0.2, 0.6])
        {'min': 0.1, 'p5': 0.11, 'median': 0.2, 'mean': 0.3}
    """
    column = np.asarray(weights, dtype=np.float64)
    return {
        "min": float(column.min()),
        "p5": float(np.quantile(column, 0.05)),
        "median": float(np.median(column)),
        "mean": float(column.mean()),
    }


def _mean(values: NDArray[np.float64], n_draws: int, seed: int) -> dict[str, float]:
    low, high = bootstrap_interval(values, n_draws=n_draws, seed=seed)
    return {"value": float(values.mean()), "low": low, "high": high}
