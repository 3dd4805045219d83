"""How far verdicts agree with labels: accuracy, AUC and calibration, with intervals over prompts.

Legend: n answers of C prompts, D draws. All answers of a prompt stand or fall together in the bootstrap.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignx.evaluate.statistics.calibration import area_under_roc, brier_terms, ece_with_reference
from alignx.evaluate.statistics.intervals import bootstrap_interval

# Numbers held at once by the bootstrap of the AUC (32 MB).
_DRAWN_AT_ONCE = 4_000_000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """Agreement of one judge with labels on one question.

    Attributes:
        question: `safety`, `truth` or `info`.
        n: answers with a verdict.
        n_prompts: their prompts.
        unscored: answers without a verdict; nothing below speaks of them.
        positive_share: share of positive labels (unsafe, true, informative): always saying the commoner label is right
            so often, or one minus it.
        accuracy: share of verdicts that agree with the label, in [0, 1]; none without verdicts.
        accuracy_interval: its 95% bootstrap interval over prompts.
        auc: chance that a positive outscores a negative; by stated probability, or by verdict where there is none;
            none unless both labels occur.
        auc_interval: its 95% bootstrap interval over prompts.
        ece: expected calibration error of the stated probabilities; none where none are stated.
        ece_by_chance: the mean that a perfectly calibrated judge would show on as many answers.
        brier: Brier score summed over both classes, in [0, 2]; none where no probabilities are stated.
        brier_interval: its 95% bootstrap interval over prompts.
    """

    question: str
    n: int
    n_prompts: int
    unscored: int
    positive_share: float | None
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    auc: float | None = None
    auc_interval: Interval | None = None
    ece: float | None = None
    ece_by_chance: float | None = None
    brier: float | None = None
    brier_interval: Interval | None = None

    def document(self) -> dict[str, Any]:
        """For json."""
        return asdict(self)


def judge_quality(
    question: str,
    *,
    positive: Sequence[bool],
    verdicts: Sequence[float | None],
    probabilities: Sequence[float | None],
    prompts: Sequence[str],
    n_draws: int = 2000,
    seed: int = 0,
) -> Quality:
    """Compare verdicts with labels.

    Args:
        question: what was asked.
        positive: labels; (n,).
        verdicts: 1 or 0, or none where there is no verdict; (n,).
        probabilities: probability of a positive that the judge states, or none; (n,).
        prompts: id of each answer's prompt; (n,).
        n_draws: of the bootstrap.
        seed: of the draws.
    """
    scored = [at for at, verdict in enumerate(verdicts) if verdict is not None]
    unscored = len(verdicts) - len(scored)
    if not scored:
        return Quality(question, 0, 0, unscored, None)
    labels = np.array([positive[at] for at in scored], dtype=bool)
    said = np.array([verdicts[at] for at in scored], dtype=np.float64)
    clusters = [prompts[at] for at in scored]
    stated = [probabilities[at] for at in scored]
    by_probability = all(probability is not None for probability in stated)
    scores = np.array(stated, dtype=np.float64) if by_probability else said
    draws: dict[str, Any] = {"n_draws": n_draws, "seed": seed}
    right = (said >= 0.5) == labels
    both = bool(labels.any() and not labels.all())
    calibration: dict[str, Any] = {}
    if by_probability:
        ece = ece_with_reference(np.maximum(scores, 1 - scores), (scores >= 0.5) == labels, **draws)
        terms = brier_terms(np.stack([1 - scores, scores], axis=1), labels.astype(np.int64))
        calibration = {
            "ece": ece.ece,
            "ece_by_chance": ece.perfect_mean,
            "brier": float(terms.mean()),
            "brier_interval": bootstrap_interval(terms, clusters=clusters, **draws),
        }
    return Quality(
        question=question,
        n=len(scored),
        n_prompts=len(set(clusters)),
        unscored=unscored,
        positive_share=float(labels.mean()),
        accuracy=float(right.mean()),
        accuracy_interval=bootstrap_interval(right.astype(np.float64), clusters=clusters, **draws),
        auc=area_under_roc(scores, labels) if both else None,
        auc_interval=bootstrap_auc(scores, labels, clusters, **draws) if both else None,
        **calibration,
    )


def bootstrap_auc(
    scores: ArrayLike, positive: ArrayLike, clusters: ArrayLike, *, n_draws: int = 2000, seed: int = 0
) -> Interval:
    """95% percentile interval of the area under the ROC curve, whole clusters drawn with replacement.

    Draws in which one of the classes is missing are left out.

    Args:
        scores: larger means more likely positive, finite; (n,).
        positive: bool or 0/1, both present; (n,).
        clusters: id of each row's cluster; (n,).
        n_draws: draws.
        seed: of the draws.

    Example:
        >>> bootstrap_auc([0.1, 0.4, 0.6, 0.9], [0, 0, 1, 1], ["a", "b", "c", "d"])
        (1.0, 1.0)
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    order = np.argsort(values, kind="stable")
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    labels, codes, values = labels[order], codes[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values) > 0]))  # of runs of equal scores
    n_clusters = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    at_once = max(1, _DRAWN_AT_ONCE // len(values))
    for first in range(0, n_draws, at_once):
        size = min(at_once, n_draws - first)
        times = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=size)[:, codes]
        above = np.add.reduceat(times * labels, starts, axis=1)  # positives by run of equal scores
        below = np.add.reduceat(times * ~labels, starts, axis=1)
        wins = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        found.append(wins[pairs > 0] / pairs[pairs > 0])
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return float(low), float(high)
