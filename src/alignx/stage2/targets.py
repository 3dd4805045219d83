"""Which expert serves a prompt best, from the experts' losses on its target."""

import torch
from torch import Tensor


def tied_experts(losses: Tensor, tolerance: float) -> Tensor:
    """(n, m) losses in nats -> (n, m) True where an expert is within `tolerance` (a share) of the row's lowest."""
    return losses <= losses.min(dim=1, keepdim=True).values * (1 + tolerance)


def soft_targets(losses: Tensor, tolerance: float) -> Tensor:
    """(n, m) probabilities: equal over the tied experts."""
    tied = tied_experts(losses, tolerance).double()
    return tied / tied.sum(dim=1, keepdim=True)


def preferred_tied(scores: Tensor, allowed: Tensor) -> Tensor:
    """(n,) number of the allowed expert with the highest of its row's (n, m) scores, the first where equal."""
    return scores.masked_fill(~allowed, -torch.inf).argmax(dim=1)


def axis_targets(axis_ids: Tensor, n_axes: int) -> Tensor:
    """(n,) axis numbers -> (n, m) one-hot probabilities."""
    return torch.nn.functional.one_hot(axis_ids, n_axes).double()
