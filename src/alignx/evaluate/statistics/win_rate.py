"""Which of two methods does better on each prompt, such as by the likelihood of the reference answer."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["win_rate"]


def win_rate(ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.float64]:
    """Wins pair by pair; their mean is the win rate, and an interval takes them as they are.

    Args:
        ours: our score of each prompt, higher is better (a log-likelihood, so a loss with its sign turned); shape (n,).
        theirs: the other method's scores of the same prompts in the same order; shape (n,).

    Returns:
        1 where we score higher, 0.5 where equal, 0 where lower; shape (n,).

    Raises:
        ValueError: shapes differ, n is 0 or a score is NaN.

    Example:
        >>> win_rate([-1.0, -2.0, -3.0], [-1.5, -2.0, -2.5]).tolist()
        [1.0, 0.5, 0.0]
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise ValueError(f"ours and theirs must both have shape (n,), n >= 1, got {first.shape} and {second.shape}.")
    if bool(np.isnan(first).any() or np.isnan(second).any()):
        raise ValueError("ours and theirs must not hold NaN: leave out pairs that were not scored, and say how many.")
    wins: NDArray[np.float64] = np.where(first == second, 0.5, (first > second).astype(np.float64))
    return wins
