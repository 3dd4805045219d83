"""Weight updates added to a base for a while, and taken out without drift."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignx.errors import ModelError
from alignx.models.gated import GatedModel
from alignx.models.layers import is_transposed, oriented
from alignx.models.named import named_owner, named_weight
from alignx.models.originals import Originals

# Name of a module (its weight is meant) or of a parameter -> function giving its dense update: (out, in) for a linear
# layer whichever way it keeps its weight, else in the parameter's shape.
Updates = Mapping[str, Callable[[], Tensor]]


@contextmanager
def folded(model: Any, updates: Updates, originals: Originals | None = None) -> Iterator[None]:
    """Add an update to each named weight; on leaving, the original bits are put back.

    Args:
        model: the base.
        updates: name -> function giving its dense update; called one at a time, so that only one dense update exists
            at once. Weights that are tied are one parameter: an update of one is an update of both.
        originals: where the original bits are read from; none: a copy is kept while inside.

    The originals are never recomputed by subtraction, which would drift.

    Raises:
        ModelError: a weight is quantised, so nothing can be added to it.
    """
    originals = originals or Originals(model)
    for name in updates:
        _addable(model, name)
    originals.keep(updates)  # all before the first is changed: a weight may have two names
    changed: list[str] = []
    try:
        with torch.no_grad():
            for name, update in updates.items():
                weight = named_weight(model, name)
                changed.append(name)
                added = oriented(update(), named_owner(model, name)).to(weight.device)
                weight.copy_((weight.float() + added.float()).to(weight.dtype))
        yield
    finally:
        originals.restore(changed)


@contextmanager
def adapters_folded(gated: GatedModel, weights: Tensor, originals: Originals) -> Iterator[None]:
    """Add one mixture of installed adapters to the base's weights; on leaving, the original bits are put back.

    Nothing dense is made: W += (B g) A, in place, in the weight's dtype (a bfloat16 sum is rounded to bfloat16, as that
    of any merged model).

    Args:
        gated: the adapters; inside, the base's own layers are in place, so nobody else may run the base meanwhile.
        weights: (adapters,) float, in the order of `gated.names`.
        originals: where the original bits are read from.

    Raises:
        ModelError: a weight is quantised, so nothing can be added to it.
        ArtifactError: as `Originals.restore`.
    """
    names = list(gated.layers)
    for name in names:
        _addable(gated.model, name)
    originals.keep(names)
    values = gated.coordinates(weights.detach().float())
    columns = None if bool((values != 0).all()) else values.nonzero()[:, 0]
    changed: list[str] = []
    try:
        with torch.no_grad():
            for name, layer in gated.layers.items():
                changed.append(name)
                weight, a, b = layer.weight, layer.a, layer.b
                scales = values.to(weight.device)
                if columns is not None:
                    a, b, scales = a[columns], b[:, columns], scales[columns]
                b = (b * scales).to(a.dtype)
                if is_transposed(layer):
                    weight.addmm_(a.T, b.T)
                else:
                    weight.addmm_(b, a)
        with gated.without_gates():
            yield
    finally:
        originals.restore(changed)


def _addable(model: Any, name: str) -> Tensor:
    weight = named_weight(model, name)
    if not weight.is_floating_point():
        raise ModelError(
            f"`{name}` is quantised ({weight.dtype}), so no update can be added to it; set `quantization: none` for "
            "what needs dense updates, such as merges"
        )
    return weight


def weighted_updates(parts: Sequence[tuple[float, Updates]]) -> dict[str, Callable[[], Tensor]]:
    """sum_i weight_i * update_i of every name, float32, each made when called; parts of weight 0 are never read."""
    used = [(weight, updates) for weight, updates in parts if weight != 0]

    def total(name: str) -> Tensor:
        return torch.stack([weight * updates[name]().float() for weight, updates in used if name in updates]).sum(0)

    return {name: partial(total, name) for name in dict.fromkeys(name for _, updates in used for name in updates)}
