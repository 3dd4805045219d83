"""How sure a mean is: percentile bootstrap over whole clusters, within strata.

Legend: n rows, C clusters (rows that stand or fall together, such as all rows of a prompt), K strata (such as the
axes), D draws. Every function here resamples in the same way:

- a cluster is drawn with all its rows, in all its strata;
- as many clusters are drawn as there are, separately for clusters that touch the same strata, so a draw never loses a
  stratum. An id found in two strata is one cluster, drawn as one;
- ids are compared as numpy compares them: strings, integers or anything else it can sort.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; clusters and strata as in Davison and
Hinkley 1997, Bootstrap Methods and their Application, sections 3.2 and 3.8.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bootstrap_interval", "bootstrap_ratio", "bootstrap_stratified_mean", "stratified_mean"]

# Numbers drawn at once (16 MB), so that memory does not grow with n_draws * n.
DRAWN_AT_ONCE = 2_000_000


def bootstrap_interval(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a mean over rows, every row weighing the same.

    Args:
        values: finite numbers; shape (n,).
        clusters: id of each row's cluster; shape (n,). None: every row is its own.
        strata: id of each row's stratum, kept in their proportions; shape (n,). None: one stratum.
        n_draws: bootstrap draws.
        seed: of the draws; the same seed gives the same interval.
        level: share of the draws inside, in (0, 1).

    Returns:
        Low and high end, in the unit of `values`. One row, or one cluster in each stratum, gives an interval of no
        width, which means unknown and not certain.

    Raises:
        ValueError: n is 0, shapes differ, a value is not finite, n_draws < 1 or level outside (0, 1).

    Example:
        >>> bootstrap_interval([0.7])
        (0.7, 0.7)
    """
    column = _checked_values(values, "values")
    sums, n_rows = _resampled_sums([column], strata, clusters, n_draws=n_draws, seed=seed)
    return _percentiles(sums[0].sum(axis=1) / n_rows.sum(axis=1), level)


def stratified_mean(values: ArrayLike, strata: ArrayLike) -> float:
    """Mean of the strata's means, such as the average of the axes: every stratum weighs the same, whatever its size.

    Args:
        values: finite numbers; shape (n,).
        strata: id of each row's stratum; shape (n,).

    Returns:
        A number in the unit of `values`.

    Raises:
        ValueError: n is 0, shapes differ or a value is not finite.

    Example:
        >>> stratified_mean([1.0, 1.0, 1.0, 3.0], ["a", "a", "a", "b"])
        2.0
    """
    column = _checked_values(values, "values")
    of_row, n_strata = _codes(strata, len(column), "strata")
    sums = np.bincount(of_row, weights=column, minlength=n_strata)
    return float((sums / np.bincount(of_row, minlength=n_strata)).mean())


def bootstrap_stratified_mean(
    values: ArrayLike,
    strata: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `stratified_mean`.

    Args:
        values: finite numbers; shape (n,).
        strata: id of each row's stratum; shape (n,).
        clusters: id of each row's cluster; shape (n,). None: every row is its own.
        n_draws: bootstrap draws.
        seed: of the draws.
        level: share of the draws inside, in (0, 1).

    Returns:
        Low and high end, in the unit of `values`; no width as in `bootstrap_interval`.

    Raises:
        ValueError: as `bootstrap_interval`.
    """
    column = _checked_values(values, "values")
    sums, n_rows = _resampled_sums([column], strata, clusters, n_draws=n_draws, seed=seed)
    return _percentiles((sums[0] / n_rows).mean(axis=1), level)


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    strata: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Ratio of two averages over the strata, paired by row, with its percentile interval.

    For relative regret: `numerator` is AlignX's loss minus the axis's own expert's, `denominator` the expert's loss.
    Both are resampled with the same rows, so what they share cancels.

    Args:
        numerator: finite numbers; shape (n,).
        denominator: finite numbers whose average keeps away from 0; shape (n,).
        strata: id of each row's stratum; shape (n,).
        clusters: id of each row's cluster; shape (n,). None: every row is its own.
        n_draws: bootstrap draws.
        seed: of the draws.
        level: share of the draws inside, in (0, 1).

    Returns:
        stratified_mean(numerator) / stratified_mean(denominator), then low and high end; a share, not per cent.

    Raises:
        ValueError: as `bootstrap_interval`, or the denominator's average is 0 or changes sign between draws.
    """
    above, below = _checked_values(numerator, "numerator"), _checked_values(denominator, "denominator")
    if above.shape != below.shape:
        raise ValueError(f"numerator and denominator must have one shape, got {above.shape} and {below.shape}.")
    sums, n_rows = _resampled_sums([above, below], strata, clusters, n_draws=n_draws, seed=seed)
    drawn_above, drawn_below = ((one / n_rows).mean(axis=1) for one in sums)
    point_below = stratified_mean(below, strata)
    if not bool((drawn_below * np.sign(point_below) > 0).all()):
        raise ValueError("the denominator's average is 0 or changes sign between draws, so the ratio has no interval.")
    low, high = _percentiles(drawn_above / drawn_below, level)
    return stratified_mean(above, strata) / point_below, low, high


def _resampled_sums(
    columns: list[NDArray[np.float64]],
    strata: ArrayLike | None,
    clusters: ArrayLike | None,
    *,
    n_draws: int,
    seed: int,
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Sum of each column by stratum in every draw, and the rows behind it: arrays of shape (D, K), rows >= 1."""
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, got {n_draws}.")
    n = len(columns[0])
    stratum, n_strata = (np.zeros(n, dtype=np.int64), 1) if strata is None else _codes(strata, n, "strata")
    cluster, n_clusters = (np.arange(n), n) if clusters is None else _codes(clusters, n, "clusters")
    cell = cluster * n_strata + stratum
    tables = [
        np.bincount(cell, weights=weights, minlength=n_clusters * n_strata).reshape(n_clusters, n_strata)
        for weights in [*columns, np.ones(n)]
    ]
    flat = np.concatenate(tables, axis=1)  # (C, (columns + 1) * K), the last K being rows
    # Clusters that touch the same strata are exchangeable; resampling them apart keeps every stratum in every draw.
    _, group = np.unique(tables[-1] > 0, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    totals = np.zeros((n_draws, flat.shape[1]))
    for code in range(int(group.max()) + 1):
        members = flat[group.reshape(-1) == code]
        at_once = max(1, DRAWN_AT_ONCE // len(members))
        for first in range(0, n_draws, at_once):
            size = min(at_once, n_draws - first)
            totals[first : first + size] += _multinomial_counts(rng, size, len(members)) @ members
    *sums, n_rows = np.split(totals, len(tables), axis=1)
    return sums, n_rows


def _multinomial_counts(rng: np.random.Generator, size: int, n: int) -> NDArray[np.float64]:
    """How often each of n units is drawn in n draws with replacement; shape (size, n), rows summing to n."""
    # Counting uniform picks is the same distribution as rng.multinomial and two to four times as fast.
    picks = rng.integers(n, size=(size, n)) + np.arange(size)[:, None] * n
    return np.bincount(picks.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _percentiles(draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, got {level}.")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked_values(values: ArrayLike, name: str) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or len(column) == 0:
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got {column.shape}.")
    if not bool(np.isfinite(column).all()):
        raise ValueError(f"{name} must be finite, found {int((~np.isfinite(column)).sum())} that are not.")
    return column


def _codes(ids: ArrayLike, n: int, name: str) -> tuple[NDArray[np.int64], int]:
    """Ids as numbers 0..count-1, and the count."""
    given = np.asarray(ids)
    if given.shape != (n,):
        raise ValueError(f"{name} must hold one id a row, shape ({n},), got {given.shape}.")
    found, codes = np.unique(given, return_inverse=True)
    return codes.astype(np.int64), len(found)
