"""The factors of a given rank that are nearest to a dense update."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.models.low_rank import LowRankUpdate

# Up to this many rows or columns the whole SVD is quick; beyond it only the leading part is computed.
_WHOLE_UP_TO = 256
# Halko et al. 2011, arXiv:0909.4061, section 4: a few more directions than asked for, and power iterations, bring the
# randomised range finder to the best approximation even where singular values fall slowly.
_MORE_DIRECTIONS = 16
_POWER_ITERATIONS = 4


@dataclass(frozen=True)
class BestFactors:
    """The factors nearest to one update.

    Attributes:
        update: the factors, B = U sqrt(S) and A = sqrt(S) V^T, scale 1.
        squared_norm: squared Frobenius norm of the whole update.
        squared_dropped: that of what the factors leave out.
    """

    update: LowRankUpdate
    squared_norm: float
    squared_dropped: float


def best_factors(dense: Tensor, rank: int, *, seed: int = 0) -> BestFactors:
    """The best approximation of an update by factors of a given rank (Eckart-Young); exact where the rank suffices.

    Args:
        dense: (out, in).
        rank: of the factors; where it exceeds what the shape allows, the rest of the factors is 0.
        seed: of the randomised range finder, which larger matrices use.
    """
    shape = dense.shape
    whole = min(shape) <= max(_WHOLE_UP_TO, rank + _MORE_DIRECTIONS)
    if whole:
        u, s, vh = torch.linalg.svd(dense.double(), full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[dense.device] if dense.is_cuda else []):
            torch.manual_seed(seed)
            u, s, v = torch.svd_lowrank(dense.float(), q=rank + _MORE_DIRECTIONS, niter=_POWER_ITERATIONS)
        vh = v.T
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    a, b = torch.zeros(rank, shape[1]), torch.zeros(shape[0], rank)
    a[:kept] = (root[:, None] * vh[:kept]).float().cpu()
    b[:, :kept] = (u[:, :kept] * root).float().cpu()
    update = LowRankUpdate(a, b, 1.0)
    left_out = dense.double().cpu() - update.dense().double()
    return BestFactors(update, float(dense.double().square().sum()), float(left_out.square().sum()))
