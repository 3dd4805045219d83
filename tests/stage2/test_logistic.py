import numpy
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from alignx.errors import TrainingError
from alignx.stage2.logistic import (
    L2_GRID,
    choose_l2,
    equal_axis_weights,
    fit_coefficients,
    fit_logistic,
    fit_temperature,
)


def _clusters(n=150, d=6, m=3, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % m
    centres = torch.randn(m, d, generator=generator, dtype=torch.float64)
    return centres[labels] * spread + torch.randn(n, d, generator=generator, dtype=torch.float64), labels


def _one_hot(labels, m=3):
    return torch.nn.functional.one_hot(labels, m).double()


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 1.0])
def test_it_is_scikit_learns_logistic_regression(l2):
    x, labels = _clusters()
    weights = torch.rand(150, generator=torch.Generator().manual_seed(1)).double() + 0.1
    weights = weights / weights.sum()
    w, b = fit_logistic(x, _one_hot(labels), weights, l2=l2)
    # sklearn minimises C * sum of weighted losses + |W|^2 / 2.
    peer = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(x, labels, sample_weight=weights.numpy())
    torch.testing.assert_close(w, torch.from_numpy(peer.coef_), rtol=0, atol=1e-4)
    expected = torch.from_numpy(peer.intercept_)
    torch.testing.assert_close(b - b.mean(), expected - expected.mean(), rtol=0, atol=1e-4)


def test_soft_targets_are_fitted_like_repeated_rows():
    x, labels = _clusters(60)
    soft = 0.75 * _one_hot(labels) + 0.25 * _one_hot((labels + 1) % 3)
    w, b = fit_logistic(x, soft, torch.ones(60), l2=0.1)
    repeated = torch.cat([labels, labels, labels, (labels + 1) % 3])
    again = fit_logistic(x.repeat(4, 1), _one_hot(repeated), torch.ones(240), l2=0.1)
    torch.testing.assert_close(w, again[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(b, again[1], rtol=0, atol=1e-5)


def test_the_scale_of_the_row_weights_does_not_matter():
    x, labels = _clusters(60)
    one, other = (fit_logistic(x, _one_hot(labels), torch.full((60,), s), l2=0.1)[0] for s in (1.0, 50.0))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_features_that_are_not_finite_are_a_training_error():
    x, labels = _clusters(30)
    x[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="left the finite numbers"):
        fit_logistic(x, _one_hot(labels), torch.ones(30), l2=0.1)


def test_the_penalty_is_strong_for_noise_and_weak_for_what_can_be_told_apart():
    x, labels = _clusters(90, spread=8.0)
    assert choose_l2(x, _one_hot(labels), torch.ones(90)) == min(L2_GRID)
    noise = torch.randn(90, 40, generator=torch.Generator().manual_seed(0)).double()
    assert choose_l2(noise, _one_hot(labels), torch.ones(90)) == max(L2_GRID)


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_recovered(truth):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4_000, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    found = fit_temperature(logits * truth, _one_hot(labels).bool(), torch.ones(4_000))
    assert found == pytest.approx(truth, rel=0.06)


@pytest.mark.parametrize(("right", "limit"), [(True, 0.05), (False, 20.0)])
def test_a_temperature_stays_in_its_range(right, limit):
    logits = torch.tensor([[1.0, 0.0]] * 10)
    allowed = torch.tensor([[right, not right]] * 10)
    assert fit_temperature(logits, allowed, torch.ones(10)) == pytest.approx(limit, abs=1e-3)


def test_where_several_classes_are_right_the_likelier_one_is_the_label():
    logits = torch.tensor([[2.0, 1.0, 0.0]] * 8 + [[0.0, 1.0, 2.0]] * 2)
    both, first = (
        torch.tensor([[True, True, False]] * 10),
        torch.tensor([[True, False, False]] * 8 + [[False, True, False]] * 2),
    )
    assert fit_temperature(logits, both, torch.ones(10)) == fit_temperature(logits, first, torch.ones(10))


def test_coefficients_are_not_negative_and_favour_the_part_that_tells():
    x, labels = _clusters()
    good = 3 * _one_hot(labels) + torch.randn(150, 3, generator=torch.Generator().manual_seed(2)).double()
    noise, wrong = torch.randn(150, 3, generator=torch.Generator().manual_seed(3)).double(), -good
    coefficients = fit_coefficients([good, noise, wrong], labels, torch.ones(150))
    assert (coefficients >= 0).all()
    assert coefficients[0] > 5 * coefficients[1] and coefficients[2] < 0.1


def test_every_axis_weighs_the_same():
    ids = torch.tensor([0, 0, 0, 2, 2, 0])
    weights = equal_axis_weights(ids, 3)
    numpy.testing.assert_allclose(numpy.bincount(ids, weights=weights, minlength=3), [1, 0, 1])
