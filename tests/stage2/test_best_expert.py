"""The read-out of the best expert: labels that it may choose itself where experts tie."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from alignx.evaluate.statistics.calibration import best_expert_labels, expected_calibration_error
from alignx.stage2 import best_expert
from alignx.stage2.best_expert import fit_best_expert
from alignx.stage2.logistic import L2_GRID, fit_logistic
from alignx.stage2.targets import soft_targets

N, TIE = 240, 0.01


def _features(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _losses(labels: torch.Tensor, tied_with: torch.Tensor | None = None) -> torch.Tensor:
    losses = torch.full((len(labels), 3), 2.0, dtype=torch.float64)
    losses.scatter_(1, labels[:, None], 1.0)
    if tied_with is not None:
        losses.scatter_(1, tied_with[:, None], 1.0)
    return losses


def _probs(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (x @ weight.T + bias).softmax(dim=1)


def test_without_ties_it_is_scikit_learns_logistic_regression(monkeypatch):
    monkeypatch.setattr(best_expert, "L2_GRID", (1e-2,))
    x = _features(0)
    labels = (x[:, :3] + 0.5 * _features(1)[:, :3]).argmax(dim=1)
    weight, bias = fit_best_expert(x * 3 + 5, _losses(labels), torch.ones(N), tie_tolerance=TIE)
    standardised = ((x - x.mean(dim=0)) / x.std(dim=0, correction=0)).numpy()
    peer = LogisticRegression(C=1 / (1e-2 * N), tol=1e-10, max_iter=10_000).fit(standardised, labels.numpy())
    expected = peer.predict_proba(standardised)
    np.testing.assert_allclose(_probs(weight, bias, x * 3 + 5).numpy(), expected, atol=1e-5)


def test_where_any_of_two_experts_will_do_it_says_one_of_them_surely():
    labels = torch.arange(N) % 2
    weight, bias = fit_best_expert(
        _features(2), _losses(labels, tied_with=1 - labels), torch.ones(N), tie_tolerance=TIE
    )
    probs = _probs(weight, bias, _features(3))
    assert float(probs.max(dim=1).values.min()) > 0.9
    assert float(probs[:, 2].max()) < 0.05


def test_it_states_how_often_it_is_right_where_equal_shares_would_not():
    """Expert 0 is best on 0.7 of the prompts, and experts 0 and 1 tie on half of all."""
    draw = torch.Generator().manual_seed(4)
    labels = (torch.rand(4000, generator=draw) > 0.7).long() * 2
    tied = torch.where((torch.rand(4000, generator=draw) < 0.5) & (labels == 0), 1, labels)
    losses, x = _losses(labels, tied_with=tied), _features(5, 4000)
    ours = _probs(*fit_best_expert(x, losses, torch.ones(4000), tie_tolerance=TIE), x)
    shares = _probs(*fit_logistic(x, soft_targets(losses, TIE), torch.ones(4000), l2=1e-2), x)

    def gap(probs: torch.Tensor) -> float:
        right = probs.argmax(dim=1).numpy() == best_expert_labels(losses, probs, TIE)
        return expected_calibration_error(probs.max(dim=1).values.numpy(), right, n_bins=5)

    assert gap(ours) < 0.03 < 0.15 < gap(shares)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("l2", L2_GRID)
def test_no_round_raises_the_loss_that_it_minimises(seed, l2, monkeypatch):
    x = _features(seed)
    losses = 1 + 0.02 * torch.rand(N, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    allowed = losses <= losses.min(dim=1, keepdim=True).values * (1 + TIE)
    seen = []

    def watched(*arguments, **named):
        weight, bias = fit_logistic(*arguments, **named)
        best = (x @ weight.T + bias).log_softmax(dim=1).masked_fill(~allowed, -torch.inf).max(dim=1).values
        seen.append(float(-best.mean() + l2 / 2 * weight.square().sum()))
        return weight, bias

    monkeypatch.setattr(best_expert, "fit_logistic", watched)
    start = soft_targets(losses, TIE)
    best_expert._classification_em(x, start, allowed, torch.ones(N), l2)
    assert len(seen) > 1
    assert all(after <= before + 1e-9 for before, after in zip(seen, seen[1:], strict=False))


def test_units_and_origin_of_a_feature_change_nothing_that_it_says():
    x = _features(6)
    losses = _losses(x[:, :3].argmax(dim=1))
    plain = _probs(*fit_best_expert(x, losses, torch.ones(N), tie_tolerance=TIE), x)
    scaled = x * torch.tensor([1e-3, 1.0, 40.0, 7.0]) - 3
    other = _probs(*fit_best_expert(scaled, losses, torch.ones(N), tie_tolerance=TIE), scaled)
    torch.testing.assert_close(other, plain, atol=1e-6, rtol=0)


def test_a_feature_that_is_switched_off_has_weight_0():
    x = _features(7)
    x[:, 2] = 0.0
    weight, bias = fit_best_expert(x, _losses(x[:, :2].argmax(dim=1)), torch.ones(N), tie_tolerance=TIE)
    assert torch.equal(weight[:, 2], torch.zeros(3, dtype=torch.float64))
    assert bool(torch.isfinite(weight).all() and torch.isfinite(bias).all())
