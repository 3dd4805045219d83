"""Weight updates added to a base for a while, and taken out without drift."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from alignx.errors import ModelError
from alignx.models.layers import oriented

# Name of a module (its weight is meant) or of a parameter -> function giving its dense update: (out, in) for a linear
# layer whichever way it keeps its weight, else in the parameter's shape.
Updates = Mapping[str, Callable[[], Tensor]]


@contextmanager
def folded(model: Any, updates: Updates) -> Iterator[None]:
    """Add an update to each named weight; on leaving, the original bits are put back.

    Args:
        model: the base.
        updates: name -> function giving its dense update; called one at a time, so that only one dense update exists
            at once. Weights that are tied are one parameter: an update of one is an update of both.

    The originals are kept as a copy while inside, never recomputed by subtraction, which would drift.

    Raises:
        ModelError: a weight is quantised, so nothing can be added to it.
    """
    originals: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for name, update in updates.items():
                weight = named_weight(model, name)
                if not weight.is_floating_point():
                    raise ModelError(
                        f"`{name}` is quantised ({weight.dtype}), so no update can be added to it; set `quantization: "
                        "none` for what needs dense updates, such as merges"
                    )
                originals[name] = weight.detach().clone()
                added = oriented(update(), named_owner(model, name)).to(weight.device)
                weight.copy_((weight.float() + added.float()).to(weight.dtype))
        yield
    finally:
        with torch.no_grad():
            for name, original in originals.items():
                named_weight(model, name).copy_(original)


def named_weight(model: Any, name: str) -> Tensor:
    """The weight of the module of that name, or the parameter of that name.

    Raises:
        AttributeError: the model has neither.
    """
    owner, _, last = name.rpartition(".")
    found: Any = getattr(model.get_submodule(owner), last)
    if isinstance(found, nn.Module):
        found = found.weight
    weight: Tensor = found
    return weight


def named_owner(model: Any, name: str) -> nn.Module:
    """The module whose weight or other parameter `named_weight` finds."""
    owner, _, last = name.rpartition(".")
    module: nn.Module = model.get_submodule(owner)
    found = getattr(module, last)
    return found if isinstance(found, nn.Module) else module


def weighted_updates(parts: Sequence[tuple[float, Updates]]) -> dict[str, Callable[[], Tensor]]:
    """sum_i weight_i * update_i of every name, float32, each made when called; parts of weight 0 are never read."""
    used = [(weight, updates) for weight, updates in parts if weight != 0]

    def total(name: str) -> Tensor:
        return torch.stack([weight * updates[name]().float() for weight, updates in used if name in updates]).sum(0)

    return {name: partial(total, name) for name in dict.fromkeys(name for _, updates in used for name in updates)}
