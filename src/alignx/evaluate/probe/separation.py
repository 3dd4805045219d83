"""How well a score tells two sets of prompts apart (AUROC), with intervals that may be compared.

Legend: n positives, m negatives, D draws.
Source: Hanley and McNeil 1982, Radiology 143, 29 to 36 (AUROC as a probability); bootstrap of both sides.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignx.evaluate.statistics.intervals import DRAWN_AT_ONCE

Array = NDArray[np.float64]
# Scores of the positives and of the negatives.
Sides = tuple[ArrayLike, ArrayLike]


def auroc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties half.

    Args:
        positives: finite scores; shape (n,).
        negatives: finite scores; shape (m,).

    Returns:
        In [0, 1]; 0.5 is chance.

    Raises:
        ValueError: one side is empty, or a score is not finite.

    Example:
        >>> auroc([2.0, 3.0], [1.0, 2.0])
        0.875
    """
    return float(_wins(positives, negatives).mean())


def auroc_draws(sides: Mapping[str, Sides], *, n_draws: int, seed: int) -> dict[str, Array]:
    """Bootstrap draws of the AUROC of several kinds of positives against the same negative prompts.

    Every kind and the negatives are resampled apart; a draw's negatives are the same for all kinds, and the same seed
    draws the same rows whatever the scores are, so draws may be averaged over kinds and compared between scores.

    Args:
        sides: kind -> scores of its positives (n_kind,) and of the negatives (m,).
        n_draws: bootstrap draws.
        seed: of the draws.

    Returns:
        Kind -> (D,).

    Raises:
        ValueError: as `auroc`.
    """
    found: dict[str, Array] = {}
    for number, (kind, (positives, negatives)) in enumerate(sides.items()):
        wins = _wins(positives, negatives)
        ours, theirs = np.random.default_rng([seed, 1 + number]), np.random.default_rng([seed, 0])
        n, m = wins.shape
        at_once = max(1, DRAWN_AT_ONCE // (n + m))
        parts = []
        for first in range(0, n_draws, at_once):
            size = min(at_once, n_draws - first)
            drawn = ours.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
            against = theirs.multinomial(m, np.full(m, 1 / m), size=size)
            parts.append(((drawn @ wins) * against).sum(axis=1) / wins.size)
        found[kind] = np.concatenate(parts)
    return found


def auroc_table(
    scores: Mapping[str, Mapping[str, Sides]],
    averaged: list[str],
    *,
    against: str,
    n_draws: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """AUROC of several scores by kind and on average, and how far one of them is above the others.

    Args:
        scores: name -> kind -> scores of its positives and of the negatives; the same prompts in the same order for
            all names, the same negative prompts for all kinds.
        averaged: kinds that `average` is over.
        against: the score whose differences to the others are given, paired by prompt.
        n_draws: bootstrap draws.
        seed: of the draws.
        level: share of the draws inside an interval.

    Returns:
        `auroc` and `difference`: name -> kind (or `average`) -> `value`, `low`, `high`.
    """
    values: dict[str, dict[str, float]] = {}
    draws: dict[str, dict[str, Array]] = {}
    for name, sides in scores.items():
        values[name] = {kind: auroc(*pair) for kind, pair in sides.items()}
        draws[name] = auroc_draws(sides, n_draws=n_draws, seed=seed)
        present = [kind for kind in averaged if kind in sides]
        if present:
            values[name]["average"] = float(np.mean([values[name][kind] for kind in present]))
            draws[name]["average"] = np.mean([draws[name][kind] for kind in present], axis=0)
    return {
        "auroc": {
            name: {kind: _summary(value, draws[name][kind], level) for kind, value in by_kind.items()}
            for name, by_kind in values.items()
        },
        "difference": {
            name: {
                kind: _summary(values[against][kind] - value, draws[against][kind] - draws[name][kind], level)
                for kind, value in by_kind.items()
            }
            for name, by_kind in values.items()
            if name != against
        },
    }


def within(lengths: ArrayLike, low: float, high: float) -> NDArray[np.bool_]:
    """Which lengths lie in [low, high]; shape (n,)."""
    column = np.asarray(lengths, dtype=np.float64)
    return (column >= low) & (column <= high)


def _wins(positives: ArrayLike, negatives: ArrayLike) -> Array:
    """1 where a positive is above a negative, a half where they tie; shape (n, m)."""
    above, below = (np.asarray(side, dtype=np.float64) for side in (positives, negatives))
    if above.ndim != 1 or below.ndim != 1 or not above.size or not below.size:
        raise ValueError(f"both sides need at least one score, shape (n,); got {above.shape} and {below.shape}.")
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise ValueError("scores must be finite.")
    wins: Array = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    return wins


def _summary(value: float, draws: Array, level: float) -> dict[str, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return {"value": value, "low": float(low), "high": float(high)}
