import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, permutations
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from alignx.stage2.natural import NaturalCalibrator
from alignx.stage2.scaling import centre_over_axes, fitted_scale


def _data(seed: int, n: int = 60, b: int = 10, k: int = 5, m: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(n) % m
    mixing = torch.randn(k, k, generator=generator, dtype=torch.float64)
    means = 2 * torch.randn(m, k, generator=generator, dtype=torch.float64)
    points = torch.randn(n, k, generator=generator, dtype=torch.float64) @ mixing + means[ids]
    return points, ids, torch.randn(b, k, generator=generator, dtype=torch.float64) @ mixing


def _inverse_covariance(calibrator: NaturalCalibrator) -> Tensor:
    return calibrator.whitening @ calibrator.whitening.T


@pytest.mark.parametrize(("n", "k"), [(60, 5), (30, 40), (300, 20)])
def test_shrunk_covariance_is_sklearns_ledoit_wolf(n, k):
    points, ids, _ = _data(0, n=n, k=k)
    calibrator = NaturalCalibrator.fit(points, ids, 3)
    means = torch.stack([points[ids == axis].mean(dim=0) for axis in range(3)])
    reference = LedoitWolf(assume_centered=True).fit((points - means[ids]).numpy())
    assert calibrator.shrinkage == pytest.approx(reference.shrinkage_, rel=1e-9)
    torch.testing.assert_close(calibrator.means, means)
    torch.testing.assert_close(
        _inverse_covariance(calibrator), torch.from_numpy(reference.precision_), rtol=1e-8, atol=1e-8
    )


def test_scores_are_lda_log_posteriors_with_equal_priors_and_uneven_axes():
    points, _, x = _data(1)
    ids = torch.cat([torch.zeros(30), torch.ones(20), torch.full((10,), 2.0)]).long()
    # sklearn shrinks each class in units of its own standard deviations: compare without shrinkage.
    calibrator = NaturalCalibrator.fit(points, ids, 3, shrinkage=0.0)
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3)
    expected = torch.from_numpy(lda.fit(points.numpy(), ids.numpy()).predict_log_proba(x.numpy()))
    torch.testing.assert_close(calibrator.scores(x).log_softmax(dim=1), expected)


def test_scores_are_minus_half_the_squared_mahalanobis_distance():
    points, ids, x = _data(2)
    calibrator = NaturalCalibrator.fit(points, ids, 3, shrinkage=0.1)
    covariance = torch.stack([torch.cov(points[ids == axis].T, correction=0) for axis in range(3)]).mean(dim=0)
    covariance = 0.9 * covariance + 0.1 * covariance.diagonal().mean() * torch.eye(5)
    difference = x[:, None, :] - calibrator.means
    squared = torch.einsum("bmi,ij,bmj->bm", difference, torch.linalg.inv(covariance), difference)
    torch.testing.assert_close(calibrator.scores(x), -0.5 * squared)
    torch.testing.assert_close(calibrator.distance(x), squared.amin(dim=1).sqrt())


@settings(max_examples=20, deadline=None)
@given(seed=integers(0, 2**16), order=permutations(range(3)))
def test_permuting_axes_permutes_scores(seed, order):
    points, ids, x = _data(seed)
    new_name = torch.tensor(order)
    scores = NaturalCalibrator.fit(points, ids, 3).scores(x)
    permuted = NaturalCalibrator.fit(points, new_name[ids], 3).scores(x)
    torch.testing.assert_close(permuted[:, new_name], scores)


@settings(max_examples=20, deadline=None)
@given(seed=integers(0, 2**16), scale=floats(1e-3, 1e3), shift=floats(-100, 100))
def test_scores_do_not_depend_on_unit_and_place(seed, scale, shift):
    points, ids, x = _data(seed)
    scores = NaturalCalibrator.fit(points, ids, 3).scores(x)
    moved = NaturalCalibrator.fit(points * scale + shift, ids, 3).scores(x * scale + shift)
    torch.testing.assert_close(moved, scores, rtol=1e-5, atol=1e-5)


def test_axes_weigh_the_same_whatever_their_size():
    points, ids, x = _data(3)
    doubled = torch.cat([points, points[ids == 0], points[ids == 0]])
    doubled_ids = torch.cat([ids, ids[ids == 0], ids[ids == 0]])
    once = NaturalCalibrator.fit(points, ids, 3, shrinkage=0.1).scores(x)
    thrice = NaturalCalibrator.fit(doubled, doubled_ids, 3, shrinkage=0.1).scores(x)
    torch.testing.assert_close(thrice, once)


@settings(max_examples=20, deadline=None)
@given(seed=integers(0, 2**16), row=integers(0, 59))
def test_a_training_row_is_scored_against_the_mean_of_the_others(seed, row):
    points, ids, _ = _data(seed)
    calibrator = NaturalCalibrator.fit(points, ids, 3)
    others = (ids == ids[row]) & (torch.arange(len(ids)) != row)
    means = calibrator.means.clone()
    means[ids[row]] = points[others].mean(dim=0)
    without = NaturalCalibrator(means, calibrator.whitening, calibrator.counts, calibrator.shrinkage)
    x, own = points[row][None], ids[row][None]
    torch.testing.assert_close(calibrator.scores(x, own_axis=own), without.scores(x))
    torch.testing.assert_close(calibrator.distance(x, own_axis=own), without.distance(x))


def test_no_own_axis_is_the_default():
    points, ids, x = _data(4)
    calibrator = NaturalCalibrator.fit(points, ids, 3)
    assert torch.equal(calibrator.scores(x, own_axis=torch.full((10,), -1)), calibrator.scores(x))


def test_save_and_load_changes_no_bit():
    points, ids, x = _data(5)
    calibrator = NaturalCalibrator.fit(points.float(), ids, 3)
    tensors = {name: tensor.clone() for name, tensor in calibrator.tensors().items()}
    loaded = NaturalCalibrator.from_state(tensors, json.loads(json.dumps(calibrator.settings())))
    assert torch.equal(loaded.scores(x.float()), calibrator.scores(x.float()))
    assert torch.equal(loaded.distance(x, own_axis=ids[:10]), calibrator.distance(x, own_axis=ids[:10]))
    with pytest.raises(ValueError, match="whitening"):
        NaturalCalibrator.from_state({"means": tensors["means"]}, calibrator.settings())


def test_precision_follows_the_prompts_and_input_stays():
    points, ids, x = _data(6)
    copy = points.clone()
    calibrator = NaturalCalibrator.fit(points, ids, 3)
    assert torch.equal(points, copy)
    assert calibrator.scores(x.bfloat16()).dtype == calibrator.scores(x.float()).dtype == torch.float32
    assert calibrator.distance(x).dtype == torch.float64
    assert calibrator.scores(x[:0]).shape == (0, 3)


def test_squared_distance_of_fresh_rows_is_about_k():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(6_000, 8, generator=generator)
    calibrator = NaturalCalibrator.fit(points, torch.zeros(6_000, dtype=torch.int64), 1)
    fresh = calibrator.distance(torch.randn(2_000, 8, generator=generator))
    assert fresh.square().mean().item() == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"points": torch.full((9, 2), math.nan)}, "NaN"),
        ({"points": torch.ones(9, 2)}, "alike"),
        ({"points": torch.randn(9)}, "rows"),
        ({"points": torch.randn(9, 20), "shrinkage": 0.0}, "larger shrinkage"),
        ({"axis_ids": torch.arange(8) % 3}, "axis id"),
        ({"axis_ids": torch.arange(9)}, "0..2"),
        ({"axis_ids": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])}, r"\{2: 1\}"),
        ({"n_axes": 0}, "n_axes"),
        ({"shrinkage": 1.5}, "shrinkage"),
        ({"shrinkage": math.nan}, "shrinkage"),
    ],
)
def test_fit_refuses_what_it_cannot_use(change, sentence):
    given = {"points": torch.randn(9, 2), "axis_ids": torch.arange(9) % 3, "n_axes": 3, **change}
    with pytest.raises(ValueError, match=sentence):
        NaturalCalibrator.fit(**given)


@pytest.mark.parametrize(
    ("x", "own", "sentence"),
    [
        (torch.zeros(2, 4), None, "shape"),
        (torch.full((2, 5), math.inf), None, "infinite"),
        (torch.zeros(2, 5), torch.tensor([0]), "own_axis"),
        (torch.zeros(2, 5), torch.tensor([0, 3]), "own_axis"),
    ],
)
def test_scores_refuse_what_they_cannot_use(x, own, sentence):
    points, ids, _ = _data(0)
    with pytest.raises(ValueError, match=sentence):
        NaturalCalibrator.fit(points, ids, 3).scores(x, own_axis=own)


@settings(max_examples=50, deadline=None)
@given(seed=integers(0, 2**16), shift=floats(-1e3, 1e3))
def test_centred_scores_sum_to_zero_and_forget_a_common_shift(seed, shift):
    scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centred = centre_over_axes(scores)
    torch.testing.assert_close(centred.sum(dim=1), torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(centre_over_axes(scores + shift), centred)
    assert fitted_scale(scores + shift) == pytest.approx(fitted_scale(scores))


def test_scores_over_their_fitted_scale_have_unit_rms():
    scores = 30 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 5
    scaled = centre_over_axes(scores) / fitted_scale(scores)
    assert scaled.square().mean().sqrt().item() == pytest.approx(1.0)
    assert fitted_scale(torch.ones(4, 3)) == fitted_scale(torch.randn(4, 1)) == 1e-6
    for bad in (torch.zeros(0, 3), torch.tensor([[math.nan, 1.0]])):
        with pytest.raises(ValueError, match="fitted_scale"):
            fitted_scale(bad)
    with pytest.raises(ValueError, match="centre_over_axes"):
        centre_over_axes(torch.zeros(3, 0))
