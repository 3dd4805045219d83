"""LoRA layers that keep one copy of their input for the backward pass and touch every activation once.

PEFT computes base(x) + B(A(x)) * s from four layers: under autocast the input is cast and kept for each, and the
result is written three times. Here it is one function with the same value and the same gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + bias + s (x A^T) B^T; gradients for x, A and B, none for W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, dtype: torch.dtype
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        low = rows @ a.to(dtype).T
        y = nn.functional.linear(rows, weight.to(dtype), None if bias is None else bias.to(dtype))
        y.addmm_(low, b.to(dtype).T, alpha=scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale, ctx.dtype = scale, dtype
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        dtype = ctx.dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        above = gradients[0].reshape(-1, gradients[0].shape[-1]).to(dtype)
        low_above = (above @ b.to(dtype)).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = above @ weight.to(dtype)
            grad_x.addmm_(low_above, a.to(dtype))
            grad_x = grad_x.view(x.shape).to(x.dtype)
        grad_a = (low_above.T @ rows).to(a.dtype)
        grad_b = (above.T @ low).to(b.dtype).mul_(ctx.scale)
        return grad_x, None, None, grad_a, grad_b, None, None


@contextmanager
def fused_lora(model: Any) -> Iterator[int]:
    """Let PEFT's plain LoRA layers of a model run fused; yields how many do.

    Layers with dropout, a quantised or transposed base, or a LoRA variant keep PEFT's own forward pass.
    """
    from peft.tuners.lora import Linear

    fused = [module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)]
    for module in fused:
        module.forward = _forward_of(module)
    try:
        yield len(fused)
    finally:
        for module in fused:
            del module.forward


def _is_plain(module: Any) -> bool:
    names = module.active_adapters
    return (
        type(module.base_layer) is nn.Linear
        and len(names) == 1
        and isinstance(module.lora_dropout[names[0]], nn.Identity)
        and not module.lora_variant
        and not module.lora_bias[names[0]]
    )


def _forward_of(module: Any) -> Any:
    name = module.active_adapters[0]
    base, a, b, scale = module.base_layer, module.lora_A[name], module.lora_B[name], module.scaling[name]

    def forward(x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            y: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
                x, base.weight, base.bias, a.weight, b.weight, scale, dtype
            )
        return y

    return forward
