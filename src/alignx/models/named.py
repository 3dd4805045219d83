"""Weights by name: a module's name means its weight, any other a parameter's own."""

from typing import Any

from torch import Tensor, nn


def named_weight(model: Any, name: str) -> Tensor:
    """The weight of the module of that name, or the parameter of that name.

    Raises:
        AttributeError: the model has neither.
    """
    found: Any = _found(model, name)
    if isinstance(found, nn.Module):
        found = found.weight
    weight: Tensor = found
    return weight


def named_owner(model: Any, name: str) -> nn.Module:
    """The module whose weight or other parameter `named_weight` finds."""
    found = _found(model, name)
    if isinstance(found, nn.Module):
        return found
    module: nn.Module = model.get_submodule(name.rpartition(".")[0])
    return module


def parameter_name(model: Any, name: str) -> str:
    """The name a checkpoint keeps that weight under."""
    return f"{name}.weight" if isinstance(_found(model, name), nn.Module) else name


def _found(model: Any, name: str) -> Any:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last)
