"""Pairwise preferences -> win rates, plain, discrete and length-controlled.

A preference is a number in [0, 1]: 1 our answer is better, 0 the baseline's, 0.5 neither. Averages over both orders and
probabilities of a judge lie between. Definitions: Li et al. 2023, AlpacaEval; length control after Dubois et al. 2024,
arXiv:2404.04475, with a fit of our own for one pair of methods (no instruction difficulty, which needs many methods).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A standard normal prior on the coefficient of length: keeps it finite where length separates the wins, small where
# pairs are few, and is soon outweighed where they are many.
LENGTH_PRIOR_PRECISION = 1.0
_NEWTON_STEPS = 50
_LARGEST_LOGIT = 30.0
_DRAWS_AT_ONCE = 200

Column = NDArray[np.float64]


@dataclass(frozen=True)
class WinRates:
    """How often we are preferred, in per cent of n pairs.

    Attributes:
        win_rate: mean preference.
        standard_error: sample standard deviation over root n; none for one pair.
        discrete_win_rate: wins and half the draws.
        n_wins: preferences above 0.5.
        n_losses: below.
        n_draws: exactly 0.5.
    """

    win_rate: float
    standard_error: float | None
    discrete_win_rate: float
    n_wins: int
    n_losses: int
    n_draws: int


def win_rates(preferences: ArrayLike) -> WinRates:
    """Summarise preferences; shape (n,), n >= 1, each in [0, 1].

    Raises:
        ValueError: another shape or range.

    Example:
        >>> win_rates([1.0, 0.5, 0.0, 1.0]).win_rate
        62.5
    """
    values = _checked(preferences)
    wins, losses = int((values > 0.5).sum()), int((values < 0.5).sum())
    draws = len(values) - wins - losses
    spread = float(100 * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    discrete = 100 * (wins + draws / 2) / len(values)
    return WinRates(float(100 * values.mean()), spread, discrete, wins, losses, draws)


def length_controlled(preferences: ArrayLike, our_lengths: ArrayLike, their_lengths: ArrayLike) -> float:
    """Win rate in per cent that answers of equal length would have, by a logistic fit.

    P(win) = sigmoid(a + b tanh(d / sd(d))), d the difference of lengths, b with a standard normal prior; the result is
    100 sigmoid(a). Where all pairs
    are won, or all lost, or all differences of length are equal, length explains nothing and the plain win rate is
    returned.

    Args:
        preferences: shape (n,), each in [0, 1].
        our_lengths: characters of our answers; shape (n,).
        their_lengths: of the baseline's.

    Raises:
        ValueError: shapes differ, n is 0 or a preference lies outside [0, 1].
    """
    values = _checked(preferences)
    lean = _length_lean(our_lengths, their_lengths, len(values))
    return float(_fit(values, lean, np.ones((1, len(values))))[0])


def length_controlled_interval(
    preferences: ArrayLike,
    our_lengths: ArrayLike,
    their_lengths: ArrayLike,
    *,
    n_draws: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `length_controlled` over pairs, one pair a prompt; fitted anew in every draw."""
    values = _checked(preferences)
    lean = _length_lean(our_lengths, their_lengths, len(values))
    rng = np.random.default_rng(seed)
    draws = []
    for first in range(0, n_draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, n_draws - first)
        draws.append(_fit(values, lean, rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size)))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _fit(values: Column, lean: Column, counts: NDArray[np.number]) -> Column:
    """100 sigmoid(a) under each row of counts (draws, n): Newton's method on two parameters, all rows at once."""
    weights = counts / counts.sum(axis=1, keepdims=True)
    plain = weights @ values
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    penalty = LENGTH_PRIOR_PRECISION / len(values)
    if not lean.any():
        return np.asarray(100 * plain)
    for _ in range(_NEWTON_STEPS):
        logits = np.clip(a[:, None] + b[:, None] * lean, -_LARGEST_LOGIT, _LARGEST_LOGIT)
        p = 1 / (1 + np.exp(-logits))
        residual, curve = weights * (values - p), weights * p * (1 - p)
        gradient_a = residual.sum(axis=1)
        gradient_b = residual @ lean - penalty * b
        aa = curve.sum(axis=1) + 1e-9
        ab, bb = curve @ lean, curve @ lean**2 + penalty
        determinant = aa * bb - ab**2
        step_a = (bb * gradient_a - ab * gradient_b) / determinant
        step_b = (aa * gradient_b - ab * gradient_a) / determinant
        a, b = a + np.clip(step_a, -2, 2), b + np.clip(step_b, -2, 2)
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-10:
            break
    fitted = 100 / (1 + np.exp(-np.clip(a, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    return np.asarray(np.where((plain == 0) | (plain == 1), 100 * plain, fitted))


def _length_lean(our_lengths: ArrayLike, their_lengths: ArrayLike, n: int) -> Column:
    """Tanh of the difference in units of its spread; all 0 where it does not vary."""
    ours, theirs = np.asarray(our_lengths, dtype=np.float64), np.asarray(their_lengths, dtype=np.float64)
    if ours.shape != (n,) or theirs.shape != (n,):
        raise ValueError(f"lengths must have shape ({n},), got {ours.shape} and {theirs.shape}.")
    difference = ours - theirs
    spread = difference.std()
    return np.asarray(np.tanh(difference / spread)) if spread > 0 else np.zeros(n)


def _checked(preferences: ArrayLike) -> Column:
    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"preferences must have shape (n,), n >= 1, got {values.shape}.")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("preferences must lie in [0, 1]: 1 ours is better, 0 theirs, 0.5 neither.")
    return values
