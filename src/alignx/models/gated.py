"""One base, several low-rank adapters, a weight for each adapter and each row of the batch.

y = W x + sum_i g_i B_i (A_i x): the A_i are stacked to one (R, in) matrix and the B_i to one (out, R), and the weights
multiply the R rank coordinates. The weights travel with the call (a context variable), never with the model, so
threads and requests do not see each other's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignx.models.low_rank import LowRankUpdate


@dataclass(frozen=True)
class _Gate:
    """Weights of a call: (b, R') values, and the R' rank coordinates they belong to (none: all of them)."""

    values: Tensor
    columns: Tensor | None


class GatedLinear(nn.Module):
    """A frozen linear layer plus weighted low-rank updates.

    Args:
        linear: the base layer; kept as it is.
        updates: the adapters' updates of this layer, in the adapters' order.
        gate: holds the (b, R) weights of the call in progress, or None for the bare base.
        dtype: of the factors where the layer's own weights are quantised.
    """

    def __init__(
        self,
        linear: nn.Module,
        updates: list[LowRankUpdate],
        gate: "ContextVar[_Gate | None]",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.linear = linear
        weight: Any = linear.weight
        dtype = weight.dtype if weight.is_floating_point() else dtype
        a = torch.cat([u.a for u in updates]).to(weight.device, dtype)
        b = torch.cat([u.b * u.scale for u in updates], dim=1).to(weight.device, dtype)
        self.a: Tensor
        self.b: Tensor
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)
        self._gate = gate

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.linear.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> Tensor | None:
        bias: Tensor | None = self.linear.bias  # type: ignore[assignment]
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """(b, s, in) -> (b, s, out); or (b s, in) -> (b s, out), as OPT calls its layers."""
        y: Tensor = self.linear(x)
        gate = self._gate.get()
        if gate is None:
            return y
        values, a, b = gate.values, self.a, self.b
        if gate.columns is not None:
            a, b = a[gate.columns], b[:, gate.columns]
        if x.shape[0] != values.shape[0]:  # beams and returned sequences repeat each row, flattened tokens too
            values = values.repeat_interleave(x.shape[0] // values.shape[0], dim=0)
        values = values if x.dim() == 2 else values[:, None, :]
        low = nn.functional.linear(x, a) * values.to(x.dtype)
        return y + nn.functional.linear(low, b)


class GatedModel:
    """Installs gated layers in a base; `remove` puts the original layers back.

    Args:
        model: a Transformers causal language model.
        adapters: adapter name -> module name -> update; all adapters cover the same modules.
    """

    def __init__(self, model: Any, adapters: Mapping[str, Mapping[str, LowRankUpdate]]) -> None:
        self.model = model
        self.names = list(adapters)
        self._gate: ContextVar[_Gate | None] = ContextVar("gate", default=None)
        first = next(iter(adapters.values()))
        self._ranks = torch.tensor([next(iter(updates.values())).a.shape[0] for updates in adapters.values()])
        self._originals: dict[str, nn.Module] = {}
        for module_name in first:
            linear = model.get_submodule(module_name)
            self._originals[module_name] = linear
            updates = [adapter[module_name] for adapter in adapters.values()]
            model.set_submodule(module_name, GatedLinear(linear, updates, self._gate, model.dtype))

    def remove(self) -> None:
        """Put the original layers back."""
        for name, linear in self._originals.items():
            self.model.set_submodule(name, linear)
        self._originals = {}

    def __enter__(self) -> "GatedModel":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _expanded(self, weights: Tensor | None) -> _Gate | None:
        """Weights of adapters -> weights of rank coordinates; adapters that no row uses are left out."""
        if weights is None:
            return None
        device = self.model.device
        ranks = self._ranks.to(device)
        values = weights.to(device).repeat_interleave(ranks, dim=1)
        used = (weights.detach() != 0).any(dim=0).to(device) | weights.requires_grad
        if bool(used.all()):
            return _Gate(values, None)
        columns = used.repeat_interleave(ranks).nonzero()[:, 0]
        return _Gate(values[:, columns], columns) if len(columns) else None

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
