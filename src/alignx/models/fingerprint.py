"""Identity of weights: sha256 of every tensor."""

import hashlib
from typing import Any

import torch
from torch import Tensor


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 (hex) of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    contiguous = tensor.detach().cpu().contiguous()
    digest.update(contiguous.view(torch.uint8).numpy().data if contiguous.numel() else b"")
    return digest.hexdigest()


def model_sha256(model: Any) -> dict[str, str]:
    """sha256 of every parameter and persistent buffer, by name."""
    return {name: tensor_sha256(tensor) for name, tensor in sorted(model.state_dict().items())}
