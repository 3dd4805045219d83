"""Matrix products of frozen layers, by the quickest kernel there is for them.

On a processor PyTorch multiplies float32 matrices with MKL, which runs far below what non-Intel processors can do.
oneDNN, which PyTorch carries too and uses for bfloat16, is 1.2 to 2 times as fast there (docs/performance.md). It
rounds differently in the last digits, so whatever promises the base's own bits asks for PyTorch's product.
"""

from functools import cache

import torch
from torch import Tensor, nn


def is_fast(x: Tensor) -> bool:
    """Whether oneDNN may be used for an input: float32 on a processor, no gradients, no autocast."""
    return (
        x.dtype is torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and _has_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, fast: bool) -> Tensor:
    """X W^T + b.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or none.
        fast: what `is_fast` says of x; weight and bias must be float32 on the processor too.

    Returns:
        (..., out).
    """
    if not fast:
        return nn.functional.linear(x, weight, bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return found


def add_product(y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Y + x W^T; without gradients or autocast in place, so y must be the caller's own.

    Args:
        y: (..., out), contiguous.
        x: (..., r).
        weight: (out, r).
    """
    if torch.is_grad_enabled() or y.dtype != x.dtype or torch.is_autocast_enabled(y.device.type):
        return y + nn.functional.linear(x, weight)
    y.view(-1, y.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.T)
    return y


@cache
def _has_onednn() -> bool:
    """Tried on small numbers: the operation is PyTorch's own, but not one it promises to keep."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        found = torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, nn.functional.linear(x, weight))
