"""Which linear layers are adapted, and the decoder layers that routing reads."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from alignx.errors import ModelError


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder's layers, first to last.

    Raises:
        ModelError: the architecture keeps them elsewhere.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"{type(model).__name__} has no `layers` in its decoder; Llama-like architectures are supported"
        )
    return layers


def adapted_modules(model: Any, target_modules: str) -> dict[str, nn.Linear]:
    """Linear layers that experts adapt, by their full name.

    Args:
        model: the base.
        target_modules: `all-linear` (every linear layer but the output head) or comma-separated last names.

    Raises:
        ModelError: nothing matches; the message lists the names there are.
    """
    head = model.get_output_embeddings()
    linear = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }
    if target_modules == "all-linear":
        chosen = linear
    else:
        wanted = {part.strip() for part in target_modules.split(",")}
        chosen = {name: module for name, module in linear.items() if name.rsplit(".", 1)[-1] in wanted}
    if not chosen:
        raise ModelError(
            f"target_modules `{target_modules}` matches no linear layer; this model has: "
            f"{', '.join(sorted(_last_names(linear))) or 'none'}"
        )
    return chosen


def _last_names(names: Iterable[str]) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in names}
