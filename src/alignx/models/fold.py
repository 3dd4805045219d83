"""Weight updates added to a base for a while, and taken out without drift."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from alignx.models.layers import oriented


@contextmanager
def folded(model: Any, updates: Mapping[str, Callable[[], Tensor]]) -> Iterator[None]:
    """Add an update to each named linear layer; on leaving, the original bits are put back.

    Args:
        model: the base.
        updates: module name -> function giving its dense update (out, in); called one at a time, so that only one
            dense update exists at once.

    The originals are kept as a copy while inside, never recomputed by subtraction, which would drift.
    """
    originals: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for name, update in updates.items():
                module = model.get_submodule(name)
                weight = module.weight
                originals[name] = weight.detach().clone()
                added = oriented(update(), module).to(weight.device)
                weight.copy_((weight.float() + added.float()).to(weight.dtype))
        yield
    finally:
        with torch.no_grad():
            for name, original in originals.items():
                model.get_submodule(name).weight.copy_(original)
