"""Whether bf16 autocast pays on this machine, and where to turn it on."""

from contextlib import AbstractContextManager, nullcontext

import torch

from alignx.runs import processes


def uses_bf16(precision: str) -> bool:
    """Resolve `auto`, `float32` or `bf16`; `auto` is bf16 where the processor or GPU multiplies it natively."""
    if precision != "auto":
        return precision == "bf16"
    if processes.device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which matrix products are bf16 where `precision` resolves to it."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if uses_bf16(precision) else nullcontext()


def resolved_precision(precision: str) -> str:
    """`bf16` or `float32`: what `auto` stands for here."""
    return "bf16" if uses_bf16(precision) else "float32"
