"""Agreement of verdicts with labels."""

import doctest

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from alignx.evaluate.trained import quality
from alignx.evaluate.trained.quality import bootstrap_auc, judge_quality


def test_doctests() -> None:
    assert doctest.testmod(quality).failed == 0


def test_the_bootstrap_of_the_auc_is_what_resampling_rows_gives() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(120) < 0.4
    scores = np.round(labels * 0.7 + rng.normal(size=120), 1)  # with ties
    clusters = np.arange(120) // 3
    low, high = bootstrap_auc(scores, labels, clusters, n_draws=400, seed=1)
    slow = []
    draw = np.random.default_rng(2)
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(clusters == one) for one in draw.integers(0, 40, 40)])
        slow.append(roc_auc_score(labels[rows], scores[rows]))
    assert [low, high] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.03)
    assert low < roc_auc_score(labels, scores) < high


def test_every_figure_is_the_known_one() -> None:
    found = judge_quality(
        "safety",
        positive=[True, True, False, False, True],
        verdicts=[1.0, 0.0, 0.0, 0.0, None],
        probabilities=[0.9, 0.4, 0.2, 0.4, None],
        prompts=["a", "a", "b", "c", "d"],
        n_draws=200,
    )
    assert (found.n, found.n_prompts, found.unscored, found.positive_share) == (4, 3, 1, 0.5)
    assert found.accuracy == 0.75
    assert found.auc == 0.875
    assert found.brier == pytest.approx(2 * (0.01 + 0.36 + 0.04 + 0.16) / 4)


def test_words_state_no_probability_and_one_label_has_no_auc() -> None:
    spoken = judge_quality(
        "truth", positive=[True, False], verdicts=[1.0, 0.0], probabilities=[None, None], prompts=["a", "b"]
    )
    assert (spoken.auc, spoken.ece, spoken.brier) == (1.0, None, None)
    single = judge_quality("truth", positive=[True], verdicts=[1.0], probabilities=[0.8], prompts=["a"])
    assert single.auc is None
    nothing = judge_quality("truth", positive=[True], verdicts=[None], probabilities=[None], prompts=["a"])
    assert (nothing.n, nothing.unscored, nothing.accuracy) == (0, 1, None)
