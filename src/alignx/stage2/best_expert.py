"""The read-out that says which expert serves a prompt best.

Within the tie tolerance several experts may be best, and naming any of them is right. So the label of a prompt is the
tied expert that the read-out itself prefers, here as where it is judged: what is minimised is

    - log max_{i tied} p_i

Asked for equal shares of tied experts instead, it would state a half where any answer is right.
"""

import torch
from torch import Tensor

from alignx.stage2.logistic import L2_GRID, cross_validation_folds, fit_logistic
from alignx.stage2.targets import axis_targets, preferred_tied, soft_targets, tied_experts

# It takes two to five; labels that still change then are of prompts on which two experts are as good.
MOST_ROUNDS = 50


def fit_best_expert(
    features: Tensor, losses: Tensor, row_weights: Tensor, *, tie_tolerance: float
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic read-out of the best expert, by hard expectation-maximisation.

    The penalty on the weights of standardised features is chosen by five-fold cross-validation.

    Args:
        features: (n, d).
        losses: (n, m) nats of every expert on the prompt's target.
        row_weights: (n,) non-negative.
        tie_tolerance: share of the lowest loss within which experts tie.

    Returns:
        W (m, d) and b (m,), float64, of logits features W^T + b.

    Raises:
        TrainingError: the optimiser left the finite numbers.

    Source: hard EM is the classification EM of Celeux and Govaert 1992, doi:10.1016/0167-9473(92)90042-E.
    """
    x = features.double()
    centre, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    # A feature that is switched off is 0 everywhere: it keeps weight 0.
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    x = (x - centre) / spread
    allowed = tied_experts(losses, tie_tolerance)
    start = soft_targets(losses, tie_tolerance)
    folds = cross_validation_folds(len(x))

    def held_out_loss(l2: float) -> float:
        total = 0.0
        for held in folds:
            weight, bias = _classification_em(x[~held], start[~held], allowed[~held], row_weights[~held], l2)
            log_probs = (x[held] @ weight.T + bias).log_softmax(dim=1)
            best = log_probs.masked_fill(~allowed[held], -torch.inf).max(dim=1).values
            total -= float((row_weights[held].double() * best).sum())
        return total

    l2 = min(L2_GRID, key=held_out_loss)
    weight, bias = _classification_em(x, start, allowed, row_weights, l2)
    weight = weight / spread
    return weight, bias - weight @ centre


def _classification_em(
    x: Tensor, start: Tensor, allowed: Tensor, row_weights: Tensor, l2: float
) -> tuple[Tensor, Tensor]:
    """Fit, let the fit choose among tied experts, fit to that, until nothing changes; neither step raises the loss."""
    weight, bias = fit_logistic(x, start, row_weights, l2=l2)
    labels = preferred_tied(x @ weight.T + bias, allowed)
    for _ in range(MOST_ROUNDS):
        weight, bias = fit_logistic(x, axis_targets(labels, start.shape[1]), row_weights, l2=l2)
        chosen = preferred_tied(x @ weight.T + bias, allowed)
        if torch.equal(chosen, labels):
            break
        labels = chosen
    return weight, bias
