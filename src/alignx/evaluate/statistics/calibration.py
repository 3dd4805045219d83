"""How far stated probabilities can be believed: reliability, calibration error, proper scores and AUROC.

Legend: n prompts, m classes (axes or experts). Everything is numpy in float64; torch CPU tensors are accepted too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "EceResult",
    "ReliabilityBin",
    "area_under_roc",
    "best_expert_labels",
    "brier_score",
    "brier_terms",
    "ece_with_reference",
    "expected_calibration_error",
    "log_loss",
    "log_loss_terms",
    "perfect_calibration_draws",
    "reliability_bins",
]

N_BINS = 15
ROW_SUM_TOLERANCE = 1e-4
# Random numbers held at once by `perfect_calibration_draws` (32 MB), so that memory does not grow with n_draws * n.
DRAWN_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class ReliabilityBin:
    """One point of a reliability diagram.

    Attributes:
        mean_confidence: mean probability given to the chosen answers, in [0, 1].
        accuracy: share of them that were right, in [0, 1].
        count: prompts in the bin, at least 1.
    """

    mean_confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class EceResult:
    """Calibration error beside what chance alone would show.

    Attributes:
        ece: expected calibration error, a probability in [0, 1].
        perfect_mean: mean of the same number over draws from a perfectly calibrated predictor.
        perfect_p95: its 95th percentile there; an `ece` below it is no evidence of miscalibration.
    """

    ece: float
    perfect_mean: float
    perfect_p95: float


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, n_bins: int = N_BINS) -> list[ReliabilityBin]:
    """Observed accuracy against stated confidence, in bins that hold equally many prompts.

    Equal confidences always share a bin, so the order of the prompts does not matter. Without ties the counts differ
    by at most 1; bins that ties or few prompts leave empty are dropped. A bin is (lo, hi] between observed
    confidences, the first also holds the lowest, and the last is closed at the highest.

    Args:
        confidence: probability given to the chosen answer, in [0, 1]; shape (n,).
        correct: whether that answer was right, bool or 0/1; shape (n,).
        n_bins: bins asked for.

    Returns:
        Between 1 and n_bins bins in order of confidence; their counts sum to n.

    Raises:
        ValueError: shapes differ, n is 0, n_bins < 1, a confidence is outside [0, 1] or a `correct` is not 0 or 1.

    Source: the bins of scikit-learn's `calibration_curve(strategy="quantile")`.
    """
    stated, right = _checked_confidence(confidence), _checked_flags(correct, "correct")
    _check_same_length(stated, right, "confidence", "correct")
    order = np.argsort(stated, kind="stable")
    stated, right = stated[order], right[order]
    starts = _bin_starts(stated, n_bins)
    counts = np.diff(np.append(starts, len(stated)))
    confidence_means = np.add.reduceat(stated, starts) / counts
    accuracies = np.add.reduceat(right, starts, dtype=np.int64) / counts
    bins = zip(confidence_means.tolist(), accuracies.tolist(), counts.tolist(), strict=True)
    return [ReliabilityBin(*one) for one in bins]


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """How far stated confidence lies from observed accuracy, averaged over the bins of `reliability_bins`.

    It is biased upwards on few prompts, even for a perfect predictor: `ece_with_reference` says by how much.

    Args:
        confidence: probability given to the chosen answer, in [0, 1]; shape (n,).
        correct: whether that answer was right, bool or 0/1; shape (n,).
        n_bins: equal-mass bins asked for.

    Returns:
        Mean absolute gap over bins, weighted by their counts: a probability in [0, 1], not per cent.

    Raises:
        ValueError: as `reliability_bins`.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2, with equal-mass instead of equal-width bins
    (Nixon et al. 2019, arXiv:1904.01685).

    Example:
        >>> expected_calibration_error([0.5, 0.5, 1.0, 1.0], [True, False, True, False], n_bins=2)
        0.25
    """
    bins = reliability_bins(confidence, correct, n_bins)
    n = sum(one.count for one in bins)
    return sum(one.count * abs(one.mean_confidence - one.accuracy) for one in bins) / n


def perfect_calibration_draws(
    confidence: ArrayLike, *, n_bins: int = N_BINS, n_draws: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Calibration errors a perfectly calibrated predictor would show by chance, at these very confidences.

    Args:
        confidence: probability given to the chosen answer, in [0, 1]; shape (n,).
        n_bins: equal-mass bins asked for.
        n_draws: how many data sets to draw.
        seed: of the draws; the same seed gives the same array.

    Returns:
        One expected calibration error a draw, in [0, 1], where prompt i is right with probability confidence[i];
        shape (n_draws,).

    Raises:
        ValueError: n is 0, n_bins < 1, n_draws < 1 or a confidence is outside [0, 1].

    Source: consistency resampling, Bröcker and Smith 2007, doi:10.1175/WAF993.1.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, got {n_draws}.")
    stated = np.sort(_checked_confidence(confidence))
    starts = _bin_starts(stated, n_bins)
    expected = np.add.reduceat(stated, starts)  # (bins,)
    rng = np.random.default_rng(seed)
    errors = np.empty(n_draws)
    at_once = max(1, DRAWN_AT_ONCE // len(stated))
    for first in range(0, n_draws, at_once):
        size = min(at_once, n_draws - first)
        right = rng.random((size, len(stated))) < stated  # random() < 1, so confidence 1 is always right
        observed = np.add.reduceat(right, starts, axis=1, dtype=np.int64)  # (size, bins)
        errors[first : first + size] = np.abs(observed - expected).sum(axis=1) / len(stated)
    return errors


def ece_with_reference(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS, n_draws: int = 2000, seed: int = 0
) -> EceResult:
    """The calibration error as it should be printed: beside the values that chance alone would give.

    Args:
        confidence: probability given to the chosen answer, in [0, 1]; shape (n,).
        correct: whether that answer was right, bool or 0/1; shape (n,).
        n_bins: equal-mass bins asked for.
        n_draws: draws of the reference.
        seed: of the draws.

    Returns:
        The error, and mean and 95th percentile of `perfect_calibration_draws`.

    Raises:
        ValueError: as `reliability_bins` and `perfect_calibration_draws`.
    """
    ece = expected_calibration_error(confidence, correct, n_bins=n_bins)
    draws = perfect_calibration_draws(confidence, n_bins=n_bins, n_draws=n_draws, seed=seed)
    return EceResult(ece, float(draws.mean()), float(np.quantile(draws, 0.95)))


def brier_terms(probs: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Squared distance of each prompt's probabilities from its label, for paired intervals.

    Args:
        probs: shape (n, m), in [0, 1], rows summing to 1 within 1e-4.
        labels: right class of each row, integers 0..m-1; shape (n,).

    Returns:
        Sum over classes of (prob - one_hot)^2, in [0, 2]; shape (n,). For two classes this is twice the square of
        one class's error.

    Raises:
        ValueError: shapes do not fit, n is 0, `probs` are no probabilities or a label is not a class.

    Source: Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2: the sum over classes, not halved.
    """
    given, right = _checked_probs(probs), _checked_labels(labels, probs)
    distance = given.copy()
    distance[np.arange(len(right)), right] -= 1.0
    terms: NDArray[np.float64] = (distance**2).sum(axis=1)
    return terms


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean of `brier_terms`: 0 is perfect, 2 is certain and always wrong, 1 - 1/m is always uniform.

    Args:
        probs: shape (n, m), in [0, 1], rows summing to 1 within 1e-4.
        labels: right class of each row, integers 0..m-1; shape (n,).

    Returns:
        A number in [0, 2], the convention of scikit-learn's `brier_score_loss(scale_by_half=False)`.

    Raises:
        ValueError: as `brier_terms`.

    Example:
        >>> brier_score([[1.0, 0.0], [0.5, 0.5]], [0, 1])
        0.25
    """
    return float(brier_terms(probs, labels).mean())


def log_loss_terms(probs: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Surprise at each prompt's label, for paired intervals.

    Args:
        probs: shape (n, m), in [0, 1], rows summing to 1 within 1e-4.
        labels: right class of each row, integers 0..m-1; shape (n,).

    Returns:
        -log(prob of the label) in nats, at least 0; shape (n,). A probability of 0 counts as the smallest normal
        float64 (2.2e-308), so a certain error costs 708 nats; nothing else is clipped.

    Raises:
        ValueError: as `brier_terms`.
    """
    given, right = _checked_probs(probs), _checked_labels(labels, probs)
    of_label = given[np.arange(len(right)), right]
    terms: NDArray[np.float64] = -np.log(np.maximum(of_label, np.finfo(np.float64).tiny))
    return terms + 0.0  # -log(1) is -0.0, and would print so


def log_loss(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean of `log_loss_terms`, in nats a prompt.

    Args:
        probs: shape (n, m), in [0, 1], rows summing to 1 within 1e-4.
        labels: right class of each row, integers 0..m-1; shape (n,).

    Returns:
        A number of at least 0; log(m) is always uniform.

    Raises:
        ValueError: as `brier_terms`.
    """
    return float(log_loss_terms(probs, labels).mean())


def best_expert_labels(losses: ArrayLike, probs: ArrayLike, tie_tolerance: float) -> NDArray[np.int64]:
    """The expert that counts as right for each prompt, where ties count for all that share them.

    Experts whose loss is at most (1 + tie_tolerance) times the row's lowest are tied, and predicting any of them is
    right: the label is the tied expert to which `probs` gives most probability, the first of them where those are
    equal. So `labels == probs.argmax(axis=1)` says whether the prediction was right. The labels belong to the
    predictor they were made with; two predictors are compared each on labels from its own `probs`.

    Args:
        losses: nats per target token, finite and at least 0; shape (n, m).
        probs: the predictor's best_probs, rows summing to 1 within 1e-4; shape (n, m).
        tie_tolerance: share of the lowest loss, at least 0; 0.01 ties losses within 1%.

    Returns:
        Integers 0..m-1; shape (n,).

    Raises:
        ValueError: shapes differ, n is 0, a loss is negative or not finite, `probs` are no probabilities, or the
            tolerance is negative or not finite.

    Example:
        >>> best_expert_labels([[2.00, 2.01, 3.0]], [[0.1, 0.3, 0.6]], tie_tolerance=0.01).tolist()
        [1]
    """
    given, costs = _checked_probs(probs), np.asarray(losses, dtype=np.float64)
    if costs.shape != given.shape:
        raise ValueError(f"losses and probs must have the same shape (n, m), got {costs.shape} and {given.shape}.")
    if not bool((np.isfinite(costs) & (costs >= 0)).all()):
        raise ValueError("losses must be finite and at least 0; a share of a negative loss would tie nothing.")
    if not (np.isfinite(tie_tolerance) and tie_tolerance >= 0):
        raise ValueError(f"tie_tolerance must be a finite share of at least 0, got {tie_tolerance}.")
    tied = costs <= costs.min(axis=1, keepdims=True) * (1 + tie_tolerance)
    labels: NDArray[np.int64] = np.where(tied, given, -1.0).argmax(axis=1).astype(np.int64)
    return labels


def area_under_roc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive outscores a negative, ties counting half.

    Args:
        scores: larger means more likely positive; infinities are ranked, NaN is refused; shape (n,).
        positive: bool or 0/1, both present; shape (n,).

    Returns:
        A number in [0, 1]; 0.5 is chance.

    Raises:
        ValueError: shapes differ, n is 0, a score is NaN, or only one of the two classes is there.

    Source: Mann and Whitney 1947, doi:10.1214/aoms/1177730491, from mid-ranks.

    Example:
        >>> area_under_roc([0.1, 0.4, 0.4, 0.9], [False, False, True, True])
        0.875
    """
    values, flags = np.asarray(scores, dtype=np.float64), _checked_flags(positive, "positive")
    if values.ndim != 1 or bool(np.isnan(values).any()):
        raise ValueError(f"scores must be numbers of shape (n,) without NaN, got shape {values.shape}.")
    _check_same_length(values, flags, "scores", "positive")
    n_positive = int(flags.sum())
    n_negative = len(flags) - n_positive
    if not (n_positive and n_negative):
        raise ValueError(f"AUROC needs both classes, got {n_positive} positive and {n_negative} negative rows.")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mid_ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # ranks from 1, equal scores share their mean
    wins = mid_ranks[flags].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def _bin_starts(ascending: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Where each non-empty equal-mass bin of sorted confidences begins."""
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}.")
    n = len(ascending)
    # Whole-number quantile positions: an interpolated edge can round to the wrong side of an observed confidence.
    upper_edges = ascending[(n - 1) * np.arange(1, n_bins) // n_bins]
    ends = np.searchsorted(ascending, upper_edges, side="right")
    starts = np.unique(np.concatenate([[0], ends]))
    return starts[starts < n].astype(np.int64)


def _checked_confidence(confidence: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(confidence, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"confidence must have shape (n,) with n >= 1, got {values.shape}.")
    _check_unit_interval(values, "confidence")
    return values


def _checked_flags(flags: ArrayLike, name: str) -> NDArray[np.bool_]:
    values = np.asarray(flags)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got {values.shape}.")
    if not bool(((values == 0) | (values == 1)).all()):
        raise ValueError(f"{name} must hold only True and False (or 1 and 0).")
    return values.astype(np.bool_)


def _checked_probs(probs: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(probs, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"probs must have shape (n, m) with n >= 1 and m >= 1, got {values.shape}.")
    _check_unit_interval(values, "probs")
    furthest = float(np.abs(values.sum(axis=1) - 1).max())
    if furthest > ROW_SUM_TOLERANCE:
        raise ValueError(f"rows of probs must sum to 1 within {ROW_SUM_TOLERANCE}, one is off by {furthest:.3g}.")
    return values


def _checked_labels(labels: ArrayLike, probs: ArrayLike) -> NDArray[np.int64]:
    values, (n, m) = np.asarray(labels), np.shape(probs)
    if values.shape != (n,):
        raise ValueError(f"labels must have shape ({n},) to fit probs of shape ({n}, {m}), got {values.shape}.")
    if not np.issubdtype(values.dtype, np.integer) or bool(((values < 0) | (values >= m)).any()):
        raise ValueError(f"labels must be integers from 0 to {m - 1}, one of the {m} columns of probs.")
    return values.astype(np.int64)


def _check_unit_interval(values: NDArray[np.float64], name: str) -> None:
    if not bool(((values >= 0) & (values <= 1)).all()):  # also catches NaN
        raise ValueError(f"{name} must be probabilities in [0, 1], found {values.min()} to {values.max()}.")


def _check_same_length(
    first: NDArray[np.float64], second: NDArray[np.bool_], first_name: str, second_name: str
) -> None:
    if first.shape != second.shape:
        raise ValueError(f"{first_name} and {second_name} must have one shape, got {first.shape} and {second.shape}.")
