"""Multinomial logistic regression with soft targets, and temperature scaling; float64, to convergence."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignx.errors import TrainingError
from alignx.stage2.targets import preferred_tied

L2_GRID: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def fit_logistic(features: Tensor, targets: Tensor, row_weights: Tensor, *, l2: float) -> tuple[Tensor, Tensor]:
    """Minimise weighted mean cross-entropy + l2 / 2 * |W|^2 (the bias is free).

    Args:
        features: (n, d).
        targets: (n, m) probabilities, rows summing to 1.
        row_weights: (n,) non-negative.
        l2: penalty on the weights.

    Returns:
        W (m, d) and b (m,), float64.

    Raises:
        TrainingError: the optimiser left the finite numbers.
    """
    x, y = features.double(), targets.double()
    weights = row_weights.double() / row_weights.double().sum()
    w = torch.zeros(y.shape[1], x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        log_probs = (x @ w.T + b).log_softmax(dim=1)
        return -(weights * (y * log_probs).sum(dim=1)).sum() + 0.5 * l2 * w.square().sum()

    _minimise(loss, [w, b], what="router")
    return w.detach(), b.detach()


def choose_l2(
    features: Tensor,
    targets: Tensor,
    row_weights: Tensor,
    *,
    n_folds: int = 5,
    grid: Sequence[float] = L2_GRID,
    seed: int = 0,
) -> float:
    """The penalty with the lowest cross-validated cross-entropy; `features`, `targets`, `row_weights` as above."""
    folds = cross_validation_folds(features.shape[0], n_folds=n_folds, seed=seed)
    losses = []
    for l2 in grid:
        total = 0.0
        for held in folds:
            w, b = fit_logistic(features[~held], targets[~held], row_weights[~held], l2=l2)
            log_probs = (features[held].double() @ w.T + b).log_softmax(dim=1)
            total -= float((row_weights[held].double() * (targets[held].double() * log_probs).sum(dim=1)).sum())
        losses.append(total)
    return grid[losses.index(min(losses))]


def cross_validation_folds(n: int, *, n_folds: int = 5, seed: int = 0) -> list[Tensor]:
    """At most `n_folds` masks (n,), each True on the rows that one fold holds out; every row is in one."""
    fold_of = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % min(n_folds, n)
    return [fold_of == fold for fold in range(min(n_folds, n))]


def fit_coefficients(parts: Sequence[Tensor], labels: Tensor, row_weights: Tensor) -> Tensor:
    """Non-negative coefficients a_j of sum_j a_j parts_j that minimise weighted cross-entropy.

    Args:
        parts: logits (n, m) each, added up.
        labels: (n,) class of each row.
        row_weights: (n,) non-negative.

    Returns:
        One coefficient a part, float64.
    """
    stacked = torch.stack([part.double() for part in parts])  # (parts, n, m)
    weights = row_weights.double() / row_weights.double().sum()
    # softplus^-1(1/parts): starts with every part speaking.
    raw = torch.full((len(parts),), 1.0 / len(parts), dtype=torch.float64).expm1().log().requires_grad_()

    def loss() -> Tensor:
        coefficients = torch.nn.functional.softplus(raw)
        log_probs = torch.einsum("p,pnm->nm", coefficients, stacked).log_softmax(dim=1)
        return -(weights * log_probs.gather(1, labels[:, None])[:, 0]).sum() + 1e-3 * coefficients.square().sum()

    _minimise(loss, [raw], what="calibrator coefficients")
    return torch.nn.functional.softplus(raw).detach()


def fit_temperature(logits: Tensor, allowed: Tensor, row_weights: Tensor) -> float:
    """Temperature that minimises weighted log loss on held-out rows.

    Args:
        logits: (n, m).
        allowed: (n, m) True for every class that counts as right; the one given most probability is the label.
        row_weights: (n,) non-negative.

    Returns:
        T in [0.05, 20]; probabilities are softmax(logits / T).

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2; the search is over log T because the loss is smooth there.
    """
    scores = logits.double()
    weights = row_weights.double() / row_weights.double().sum()
    labels = preferred_tied(scores, allowed)
    candidates = torch.linspace(-3.0, 3.0, 1201, dtype=torch.float64).exp().clamp(0.05, 20.0)
    log_probs = (scores[None] / candidates[:, None, None]).log_softmax(dim=2)
    losses = -(log_probs.gather(2, labels[None, :, None].expand(len(candidates), -1, 1))[:, :, 0] * weights).sum(dim=1)
    return float(candidates[losses.argmin()])


def equal_axis_weights(axis_ids: Tensor, n_axes: int) -> Tensor:
    """(n,) row weights under which every axis weighs the same."""
    counts = torch.bincount(axis_ids, minlength=n_axes).clamp_min(1)
    return 1.0 / counts[axis_ids].double()


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor], *, what: str) -> None:
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise TrainingError(f"fitting the {what} left the finite numbers; check the data for identical prompts")
