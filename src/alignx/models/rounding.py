"""Whether two computations of the same thing differ by rounding only."""

import torch
from torch import Tensor

# A matrix product over more rows may sum in another order; what is really different (a token that sees another
# sequence, another position) is off by far more than either.
_FLOAT32_TOLERANCE = 1e-3
_ROUNDINGS = 8  # of the dtype, over all layers


def equal_but_for_rounding(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors of hidden states are equal within what their dtype rounds away, by norm."""
    if found.shape != expected.shape:
        return False
    tolerance = max(_FLOAT32_TOLERANCE, _ROUNDINGS * torch.finfo(expected.dtype).eps)
    difference = (found.float() - expected.float()).norm()
    return bool(difference <= tolerance * expected.float().norm())
