"""One base, several low-rank adapters, a weight for each adapter and each row of the batch.

y = W x + sum_i g_i B_i (A_i x): the A_i are stacked to one (R, in) matrix and the B_i to one (out, R), and the weights
multiply the R rank coordinates. The weights travel with the call (a context variable), never with the model, so
threads and requests do not see each other's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from alignx.models.low_rank import LowRankUpdate

_Gate = ContextVar[Tensor | None]


class GatedLinear(nn.Module):
    """A frozen linear layer plus weighted low-rank updates.

    Args:
        linear: the base layer; kept as it is.
        updates: the adapters' updates of this layer, in the adapters' order.
        gate: holds the (b, R) weights of the call in progress, or None for the bare base.
    """

    def __init__(self, linear: nn.Linear, updates: list[LowRankUpdate], gate: _Gate) -> None:
        super().__init__()
        self.linear = linear
        like = linear.weight
        self.a: Tensor
        self.b: Tensor
        self.register_buffer("a", torch.cat([u.a for u in updates]).to(like), persistent=False)
        self.register_buffer("b", torch.cat([u.b * u.scale for u in updates], dim=1).to(like), persistent=False)
        self._gate = gate

    @property
    def weight(self) -> Tensor:
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """(b, s, in) -> (b, s, out)."""
        y: Tensor = self.linear(x)
        gate = self._gate.get()
        if gate is None:
            return y
        if x.shape[0] != gate.shape[0]:  # beams and returned sequences repeat each row
            gate = gate.repeat_interleave(x.shape[0] // gate.shape[0], dim=0)
        low = nn.functional.linear(x, self.a) * gate[:, None, :].to(x.dtype)
        return y + nn.functional.linear(low, self.b)


class GatedModel:
    """Installs gated layers in a base; `remove` puts the original layers back.

    Args:
        model: a Transformers causal language model.
        adapters: adapter name -> module name -> update; all adapters cover the same modules.
    """

    def __init__(self, model: Any, adapters: Mapping[str, Mapping[str, LowRankUpdate]]) -> None:
        self.model = model
        self.names = list(adapters)
        self._gate: _Gate = ContextVar("gate", default=None)
        first = next(iter(adapters.values()))
        self._ranks = torch.tensor([next(iter(updates.values())).a.shape[0] for updates in adapters.values()])
        self._originals: dict[str, nn.Linear] = {}
        for module_name in first:
            linear = model.get_submodule(module_name)
            self._originals[module_name] = linear
            updates = [adapter[module_name] for adapter in adapters.values()]
            model.set_submodule(module_name, GatedLinear(linear, updates, self._gate))

    def remove(self) -> None:
        """Put the original layers back."""
        for name, linear in self._originals.items():
            self.model.set_submodule(name, linear)
        self._originals = {}

    def __enter__(self) -> "GatedModel":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    @contextmanager
    def using(self, weights: Tensor | None) -> Iterator[None]:
        """Weights of the calls made inside.

        Args:
            weights: (b, adapters), one row for each row of the batch, columns in the order of `names`; gradients
                flow to it. None, or all zeros without a gradient, is the bare base, bit for bit.
        """
        gate = None
        if weights is not None and (weights.requires_grad or bool(weights.any())):
            ranks = self._ranks.to(weights.device)
            gate = weights.to(self.model.device).repeat_interleave(ranks.to(self.model.device), dim=1)
        token = self._gate.set(gate)
        try:
            yield
        finally:
            self._gate.reset(token)
