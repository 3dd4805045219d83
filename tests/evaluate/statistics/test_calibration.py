import doctest
import time

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from sklearn.calibration import calibration_curve

from alignx.evaluate.statistics import calibration
from alignx.evaluate.statistics.calibration import (
    area_under_roc,
    best_expert_labels,
    brier_score,
    brier_terms,
    ece_with_reference,
    expected_calibration_error,
    log_loss,
    log_loss_terms,
    perfect_calibration_draws,
    reliability_bins,
)

SEEDS = integers(0, 2**16)
ANY_PACE = settings(deadline=None)  # a busy machine is no failure


def _answers(seed, n, grid=None):
    """Confidences (on a grid of that many steps, so that they tie) and whether each answer was right."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(n) if grid is None else rng.integers(0, grid + 1, n) / grid
    return confidence, rng.random(n) < confidence


def _predictions(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(m), size=n), rng.integers(0, m, n)


def _slow_ece(confidence, correct, n_bins):
    """The same definition by hand: a prompt belongs to the first edge that is not below its confidence."""
    ascending = sorted(confidence)
    edges = [ascending[(len(ascending) - 1) * k // n_bins] for k in range(1, n_bins)] + [ascending[-1]]
    bins = {}
    for stated, right in zip(confidence, correct, strict=True):
        bins.setdefault(next(k for k, edge in enumerate(edges) if stated <= edge), []).append((stated, right))
    gaps = [abs(sum(stated for stated, _ in rows) - sum(right for _, right in rows)) for rows in bins.values()]
    return sum(gaps) / len(confidence)


# n - 1 shares no factor with 15 here: where an edge falls on an observed confidence (n = 100), sklearn's interpolation
# may round it to just below and count that prompt one bin later.
@pytest.mark.parametrize("n", [9, 99, 360, 1200])
@pytest.mark.parametrize("grid", [None, 20])
def test_bins_are_those_of_sklearns_calibration_curve(n, grid):
    confidence, correct = _answers(n, n, grid)
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=15, strategy="quantile")
    bins = reliability_bins(confidence, correct, 15)
    np.testing.assert_allclose([one.accuracy for one in bins], accuracy, rtol=1e-12)
    np.testing.assert_allclose([one.mean_confidence for one in bins], mean_confidence, rtol=1e-12)


@ANY_PACE
@given(seed=SEEDS, n=integers(1, 200), n_bins=integers(1, 40))
def test_bins_without_ties_hold_equally_many_prompts(seed, n, n_bins):
    counts = [one.count for one in reliability_bins(*_answers(seed, n), n_bins)]
    assert sum(counts) == n
    assert len(counts) == min(n, n_bins)
    assert max(counts) - min(counts) <= 1


@ANY_PACE
@given(seed=SEEDS, n=integers(1, 120), n_bins=integers(1, 30), grid=sampled_from([None, 1, 3, 10]))
def test_ece_is_the_definition_whatever_the_ties_and_the_order(seed, n, n_bins, grid):
    confidence, correct = _answers(seed, n, grid)
    ece = expected_calibration_error(confidence, correct, n_bins=n_bins)
    assert 0 <= ece <= 1
    assert ece == pytest.approx(_slow_ece(confidence, correct, n_bins), abs=1e-12)
    order = np.random.default_rng(seed + 1).permutation(n)
    assert expected_calibration_error(confidence[order], correct[order], n_bins=n_bins) == ece
    assert sum(one.count for one in reliability_bins(confidence, correct, n_bins)) == n


@pytest.mark.parametrize("n_certain", [1, 7, 300])
def test_confidence_one_lands_in_the_last_bin(n_certain):
    confidence = np.concatenate([np.linspace(0.2, 0.9, 100), np.ones(n_certain)])
    *others, last = reliability_bins(confidence, confidence == 1, 15)
    assert last.accuracy * last.count == pytest.approx(n_certain)
    assert all(one.accuracy == 0 for one in others)


def test_equal_confidences_share_one_bin():
    bins = reliability_bins(np.full(50, 0.3), np.arange(50) < 20, 15)
    assert [one.count for one in bins] == [50]
    assert bins[0].accuracy == 0.4
    assert expected_calibration_error(np.full(50, 0.3), np.arange(50) < 20) == pytest.approx(0.1)


def test_one_prompt_is_one_bin():
    assert expected_calibration_error([0.75], [True]) == 0.25
    result = ece_with_reference([0.75], [True])
    assert result.perfect_mean == pytest.approx(2 * 0.75 * 0.25, abs=0.02)
    assert result.perfect_p95 == 0.75


def test_fewer_prompts_than_bins_give_one_bin_each():
    assert [one.count for one in reliability_bins([0.9, 0.1, 0.5], [True, False, True], 15)] == [1, 1, 1]


def test_a_perfect_predictor_passes_its_own_reference_95_times_in_100():
    passed = []
    for seed in range(200):
        confidence, correct = _answers(seed, 150)
        passed.append(expected_calibration_error(confidence, correct) <= _p95(confidence, seed))
    assert 0.91 <= np.mean(passed) <= 0.985


def _p95(confidence, seed):
    return np.quantile(perfect_calibration_draws(confidence, n_draws=300, seed=seed + 10_000), 0.95)


def test_an_overconfident_predictor_fails_its_reference():
    rng = np.random.default_rng(0)
    confidence = 0.5 + rng.random(360) / 2
    result = ece_with_reference(confidence, rng.random(360) < confidence - 0.2)
    assert result.ece > result.perfect_p95 > result.perfect_mean > 0


def test_draws_agree_with_scoring_drawn_answers_one_by_one():
    confidence, _ = _answers(0, 90, grid=12)
    rng = np.random.default_rng(1)
    slow = [expected_calibration_error(confidence, rng.random(90) < confidence) for _ in range(2000)]
    draws = perfect_calibration_draws(confidence)
    assert draws.shape == (2000,)
    assert draws.mean() == pytest.approx(np.mean(slow), rel=0.03)
    assert np.quantile(draws, 0.95) == pytest.approx(np.quantile(slow, 0.95), rel=0.03)


def test_draws_depend_on_the_seed_alone(monkeypatch):
    confidence, _ = _answers(0, 70)
    draws = perfect_calibration_draws(confidence, n_draws=50, seed=3)
    np.testing.assert_array_equal(perfect_calibration_draws(confidence[::-1], n_draws=50, seed=3), draws)
    monkeypatch.setattr(calibration, "DRAWN_AT_ONCE", 200)
    np.testing.assert_array_equal(perfect_calibration_draws(confidence, n_draws=50, seed=3), draws)
    assert not np.array_equal(perfect_calibration_draws(confidence, n_draws=50, seed=4), draws)


def test_certain_predictors_have_no_chance_error():
    np.testing.assert_array_equal(perfect_calibration_draws([0.0, 1.0, 1.0], n_draws=20), np.zeros(20))


def test_two_thousand_draws_of_two_thousand_prompts_are_quick():
    confidence, _ = _answers(0, 2000)
    start = time.process_time()
    perfect_calibration_draws(confidence)
    assert time.process_time() - start < 2  # about 0.1 s on a free core


@pytest.mark.parametrize("m", [2, 3, 5])
def test_proper_scores_are_sklearns(m):
    probs, labels = _predictions(m, 200, m)
    everything = list(range(m))
    expected_brier = sklearn.metrics.brier_score_loss(labels, probs, labels=everything, scale_by_half=False)
    assert brier_score(probs, labels) == pytest.approx(expected_brier, rel=1e-12)
    assert log_loss(probs, labels) == pytest.approx(sklearn.metrics.log_loss(labels, probs, labels=everything))


@ANY_PACE
@given(seed=SEEDS, n=integers(1, 40), m=integers(1, 6))
def test_renaming_classes_and_reordering_prompts_changes_no_term(seed, n, m):
    probs, labels = _predictions(seed, n, m)
    rng = np.random.default_rng(seed + 1)
    rows, classes = rng.permutation(n), rng.permutation(m)
    new_labels = np.argsort(classes)[labels]
    np.testing.assert_allclose(brier_terms(probs[rows][:, classes], new_labels[rows]), brier_terms(probs, labels)[rows])
    np.testing.assert_array_equal(
        log_loss_terms(probs[rows][:, classes], new_labels[rows]), log_loss_terms(probs, labels)[rows]
    )


def test_terms_average_to_the_scores_and_leave_the_caller_its_arrays():
    probs, labels = _predictions(0, 30, 3)
    before = probs.copy()
    assert brier_terms(probs, labels).mean() == brier_score(probs, labels)
    assert log_loss_terms(probs, labels).mean() == log_loss(probs, labels)
    np.testing.assert_array_equal(probs, before)


def test_ends_of_the_proper_scores():
    certain = [[1.0, 0.0]]
    assert (brier_score(certain, [0]), brier_score(certain, [1])) == (0, 2)
    assert str(log_loss(certain, [0])) == "0.0"
    assert log_loss(certain, [1]) == pytest.approx(708.396, abs=1e-3)
    assert log_loss([[1e-200, 1.0]], [0]) == pytest.approx(200 * np.log(10))


def test_any_of_the_tied_experts_is_right():
    losses = [[1.00, 1.009, 1.5], [1.00, 1.009, 1.5], [1.00, 1.02, 1.5], [0.0, 0.0, 1.0]]
    probs = [[0.3, 0.4, 0.3], [0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.4, 0.4, 0.2]]
    assert best_expert_labels(losses, probs, 0.01).tolist() == [1, 0, 0, 0]
    assert best_expert_labels(losses, probs, 0.0).tolist() == [0, 0, 0, 0]


@ANY_PACE
@given(seed=SEEDS, n=integers(1, 40), m=integers(1, 5), tolerance=sampled_from([0.0, 0.01, 0.3]))
def test_a_prediction_is_right_exactly_when_its_expert_is_tied_for_best(seed, n, m, tolerance):
    probs, _ = _predictions(seed, n, m)
    losses = np.random.default_rng(seed + 1).uniform(1, 2, (n, m))
    labels, predicted, rows = best_expert_labels(losses, probs, tolerance), probs.argmax(axis=1), np.arange(n)
    lowest = losses.min(axis=1)
    assert (losses[rows, labels] <= lowest * (1 + tolerance)).all()
    np.testing.assert_array_equal(labels == predicted, losses[rows, predicted] <= lowest * (1 + tolerance))
    classes = np.random.default_rng(seed + 2).permutation(m)
    np.testing.assert_array_equal(classes[best_expert_labels(losses[:, classes], probs[:, classes], tolerance)], labels)


@ANY_PACE
@given(seed=SEEDS, n=integers(2, 80), grid=sampled_from([1, 3, 1000]))
def test_area_under_roc_is_sklearns(seed, n, grid):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, grid, n) / grid, rng.permutation(np.arange(n) < rng.integers(1, n))
    expected = sklearn.metrics.roc_auc_score(positive, scores)
    assert area_under_roc(scores, positive) == pytest.approx(expected, abs=1e-12)
    assert area_under_roc(-scores, positive) == pytest.approx(1 - expected, abs=1e-12)


def test_area_under_roc_ranks_infinite_scores():
    assert area_under_roc([-np.inf, 0.0, np.inf], [False, True, True]) == 1.0


def test_torch_tensors_are_read_as_they_are():
    probs, labels = _predictions(0, 20, 3)
    tensors = torch.from_numpy(probs), torch.from_numpy(labels)
    assert brier_score(*tensors) == brier_score(probs, labels)
    confidence, correct = tensors[0].max(dim=1).values, tensors[0].argmax(dim=1) == tensors[1]
    assert expected_calibration_error(confidence, correct) == expected_calibration_error(
        confidence.numpy(), correct.numpy()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_calibration_error([], []), "n >= 1"),
        (lambda: expected_calibration_error([0.5, 0.5], [True]), "one shape"),
        (lambda: expected_calibration_error([[0.5]], [[True]]), r"shape \(n,\)"),
        (lambda: expected_calibration_error([1.1], [True]), r"in \[0, 1\]"),
        (lambda: expected_calibration_error([np.nan], [True]), r"in \[0, 1\]"),
        (lambda: expected_calibration_error([0.5], [0.5]), "True and False"),
        (lambda: expected_calibration_error([0.5], [True], n_bins=0), "n_bins"),
        (lambda: reliability_bins([0.5], [True], -1), "n_bins"),
        (lambda: perfect_calibration_draws([]), "n >= 1"),
        (lambda: perfect_calibration_draws([0.5], n_draws=0), "n_draws"),
        (lambda: ece_with_reference([0.5], [True], n_bins=0), "n_bins"),
        (lambda: brier_score(np.zeros((0, 3)), []), "n >= 1"),
        (lambda: brier_score([0.5, 0.5], [0, 1]), r"shape \(n, m\)"),
        (lambda: brier_score([[0.5, 0.4]], [0]), "sum to 1"),
        (lambda: brier_score([[1.5, -0.5]], [0]), r"in \[0, 1\]"),
        (lambda: brier_score([[0.5, 0.5]], [0, 1]), "labels must have shape"),
        (lambda: brier_score([[0.5, 0.5]], [2]), "from 0 to 1"),
        (lambda: log_loss([[0.5, 0.5]], [-1]), "from 0 to 1"),
        (lambda: log_loss([[0.5, 0.5]], [0.0]), "integers"),
        (lambda: best_expert_labels([[1.0]], [[0.5, 0.5]], 0.01), "same shape"),
        (lambda: best_expert_labels([[1.0, np.inf]], [[0.5, 0.5]], 0.01), "finite"),
        (lambda: best_expert_labels([[1.0, -1.0]], [[0.5, 0.5]], 0.01), "at least 0"),
        (lambda: best_expert_labels([[1.0, 1.0]], [[0.5, 0.5]], -0.01), "tie_tolerance"),
        (lambda: area_under_roc([], []), "n >= 1"),
        (lambda: area_under_roc([1.0, np.nan], [True, False]), "NaN"),
        (lambda: area_under_roc([1.0], [True, False]), "one shape"),
        (lambda: area_under_roc([1.0, 2.0], [True, True]), "both classes"),
    ],
)
def test_impossible_input_is_refused_with_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_docstring_examples_print_what_they_say():
    outcome = doctest.testmod(calibration)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
