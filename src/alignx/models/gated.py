"""One base, several low-rank adapters, a weight for each adapter and each row of the batch.

y = W x + sum_i g_i B_i (A_i x): the A_i are stacked to one (R, in) matrix and the B_i to one (out, R), and the weights
multiply the R rank coordinates. Layers that are given one and the same input (queries, keys and values; gate and up)
stack their A too, so it is multiplied once for all of them. The weights travel with the call (a context variable),
never with the model, so threads and requests do not see each other's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from alignx.models.low_rank import LowRankUpdate
from alignx.models.product import add_product, is_fast, product
from alignx.models.shared_inputs import layers_by_input


class Gate:
    """Weights of one call, and what is made of them once for all layers and tokens.

    Args:
        values: (b, R') weights of the rank coordinates in use.
        columns: the R' coordinates they belong to; none: all of them.
        bare_rows: whether some row is the bare base, whose bits only the base's own product gives.
    """

    def __init__(self, values: Tensor, columns: Tensor | None, *, bare_rows: bool = False) -> None:
        self.values = values
        self.columns = columns
        self.bare_rows = bare_rows
        self._shaped: dict[tuple[int, int, int, torch.dtype], Tensor] = {}
        self._gathered: dict[tuple[int, str], Tensor] = {}
        self._low: tuple[_Shared, Tensor, Tensor] | None = None

    def low(self, layer: "GatedLinear", x: Tensor, *, fast: bool) -> Tensor:
        """Weighted rank coordinates (..., R') of a layer's input; made once for all layers that share it."""
        shared: Any = layer._modules["shared"]
        place, width = layer.place, self.values.shape[1]
        if shared.size == 1:
            return self._weighted(shared, x, fast)
        if self._low is None or self._low[0] is not shared or self._low[1] is not x:
            self._low = shared, x, self._weighted(shared, x, fast)
        low = self._low[2][..., place * width : (place + 1) * width]
        if place == shared.size - 1:
            self._low = None
        return low

    def b(self, layer: "GatedLinear") -> Tensor:
        """(out, R') columns in use."""
        if self.columns is None:
            b: Any = layer._buffers["b"]
            whole: Tensor = b
            return whole
        key = id(layer), "b"
        if key not in self._gathered:
            self._gathered[key] = layer.b[:, self.columns]
        return self._gathered[key]

    def _a(self, shared: "_Shared") -> Tensor:
        if self.columns is None:
            return shared.a
        key = id(shared), "a"
        if key not in self._gathered:
            rank = shared.a.shape[0] // shared.size
            rows = torch.cat([self.columns + place * rank for place in range(shared.size)])
            self._gathered[key] = shared.a[rows]
        return self._gathered[key]

    def _weighted(self, shared: "_Shared", x: Tensor, fast: bool) -> Tensor:
        # One token's small product is over before oneDNN has begun.
        low = product(x, self._a(shared), fast=fast and x.numel() > x.shape[-1])
        values = self._values(x, shared.size)
        return low * values if torch.is_grad_enabled() else low.mul_(values)

    def _values(self, x: Tensor, size: int) -> Tensor:
        """The weights as x needs them: in its dtype, for every row, once for each layer that shares it."""
        key = x.shape[0], x.dim(), size, x.dtype
        if key in self._shaped:
            return self._shaped[key]
        values = self.values
        if x.shape[0] != values.shape[0]:  # beams and returned sequences repeat each row, flattened tokens too
            values = values.repeat_interleave(x.shape[0] // values.shape[0], dim=0)
        values = values.to(x.dtype).repeat(1, size)
        values = values if x.dim() == 2 else values[:, None, :]
        if not values.requires_grad:  # a graph is gone after its first backward pass
            self._shaped[key] = values
        return values


class _Shared(nn.Module):
    """The stacked A of layers that share their input: (size R, in)."""

    def __init__(self, a: Tensor, size: int) -> None:
        super().__init__()
        self.a: Tensor
        self.register_buffer("a", a, persistent=False)
        self.size = size


class GatedLinear(nn.Module):
    """A frozen linear layer plus weighted low-rank updates.

    Args:
        linear: the base layer; kept as it is.
        b: (out, R) the stacked B_i, scaled.
        shared: holds the A_i of this layer and of those with the same input.
        place: this layer's among them.
        gate: holds the gate of the call in progress, or None for the bare base.
    """

    def __init__(
        self, linear: nn.Module, b: Tensor, shared: _Shared, place: int, gate: "ContextVar[Gate | None]"
    ) -> None:
        super().__init__()
        self.linear = linear
        self.b: Tensor
        self.register_buffer("b", b, persistent=False)
        self.shared = shared
        self.place = place
        # Another kernel may stand in for the base's product only where it is a plain one.
        self._is_plain = type(linear) is nn.Linear
        self._gate = gate

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.linear.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> Tensor | None:
        bias: Tensor | None = self.linear.bias  # type: ignore[assignment]
        return bias

    @property
    def a(self) -> Tensor:
        """(R, in) the stacked A_i of this layer."""
        rank = self.shared.a.shape[0] // self.shared.size
        return self.shared.a[self.place * rank : (self.place + 1) * rank]

    def forward(self, x: Tensor) -> Tensor:
        """(b, s, in) -> (b, s, out); or (b s, in) -> (b s, out), as OPT calls its layers."""
        gate = self._gate.get()
        linear: Any = self._modules["linear"]  # past the module's own look-up, which costs as much as a small product
        if gate is None:
            bare: Tensor = linear(x)
            return bare
        fast = is_fast(x)
        if fast and self._is_plain and not gate.bare_rows:
            y = product(x, linear.weight, linear.bias, fast=True)
        else:
            y = linear(x)
        return add_product(y, gate.low(self, x, fast=fast), gate.b(self))


class GatedModel:
    """Installs gated layers in a base; `remove` puts the original layers back.

    Args:
        model: a Transformers causal language model.
        adapters: adapter name -> module name -> update; all adapters cover the same modules.
    """

    def __init__(self, model: Any, adapters: Mapping[str, Mapping[str, LowRankUpdate]]) -> None:
        self.model = model
        self.names = list(adapters)
        self._gate: ContextVar[Gate | None] = ContextVar("gate", default=None)
        first = next(iter(adapters.values()))
        self._ranks = torch.tensor([next(iter(updates.values())).a.shape[0] for updates in adapters.values()])
        self.layers: dict[str, GatedLinear] = {}
        for names in layers_by_input(model, list(first)):
            self._install(names, adapters)

    def _install(self, names: Sequence[str], adapters: Mapping[str, Mapping[str, LowRankUpdate]]) -> None:
        """Gate layers that share their input."""
        linears = [self.model.get_submodule(name) for name in names]
        weight = linears[0].weight
        # The factors of a quantised layer are in the dtype that the model computes in.
        kind = {"device": weight.device, "dtype": weight.dtype if weight.is_floating_point() else self.model.dtype}
        a = torch.cat([updates[name].a.to(**kind) for name in names for updates in adapters.values()])
        shared = _Shared(a, len(names))
        for place, (name, linear) in enumerate(zip(names, linears, strict=True)):
            b = torch.cat([(updates[name].b * updates[name].scale).to(**kind) for updates in adapters.values()], dim=1)
            layer = GatedLinear(linear, b, shared, place, self._gate)
            layer.training = linear.training
            self.layers[name] = layer
            self.model.set_submodule(name, layer)

    def remove(self) -> None:
        """Put the original layers back."""
        for name, layer in self.layers.items():
            self.model.set_submodule(name, layer.linear)
        self.layers = {}

    def __enter__(self) -> "GatedModel":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def coordinates(self, weights: Tensor) -> Tensor:
        """Weights of adapters (..., adapters) -> weights of their rank coordinates (..., R)."""
        return weights.repeat_interleave(self._ranks.to(weights.device), dim=-1)

    def _expanded(self, weights: Tensor | None) -> Gate | None:
        """Weights of adapters -> the call's gate; adapters that no row uses are left out."""
        if weights is None:
            return None
        values = self.coordinates(weights.to(self.model.device))
        on = weights.detach() != 0
        bare_rows = not bool(on.any(dim=1).all()) and not weights.requires_grad
        used = on.any(dim=0) | weights.requires_grad
        if bool(used.all()):
            return Gate(values, None, bare_rows=bare_rows)
        columns = self.coordinates(used).to(values.device).nonzero()[:, 0]
        return Gate(values[:, columns], columns, bare_rows=bare_rows) if len(columns) else None

    @contextmanager
    def using(self, weights: Tensor | None) -> Iterator[None]:
        """Weights of the calls made inside.

        Args:
            weights: (b, adapters), one row for each row of the batch, columns in the order of `names`; gradients
                flow to it. None, or all zeros without a gradient, is the bare base, bit for bit.
        """
        token = self._gate.set(self._expanded(weights))
        try:
            yield
        finally:
            self._gate.reset(token)

    @contextmanager
    def without_gates(self) -> Iterator[None]:
        """The base's own layers in place; only while no other call runs on the base."""
        for name, layer in self.layers.items():
            self.model.set_submodule(name, layer.linear)
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                self.model.set_submodule(name, layer)
