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


def axis_targets(axis_ids: Tensor, n_axes: int) -> Tensor:
    """(n,) axis numbers -> (n, m) one-hot probabilities."""
    return torch.nn.functional.one_hot(axis_ids, n_axes).double()
