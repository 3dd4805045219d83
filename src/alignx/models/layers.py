"""Which linear layers are adapted, and the decoder layers that routing reads."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from alignx.errors import ModelError

# What the architectures of Transformers call their stack: Llama and most, GPT-2 and BLOOM, MPT.
_STACKS = ("layers", "h", "blocks")


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder's layers, first to last.

    Raises:
        ModelError: the architecture keeps them elsewhere.
    """
    decoder = model.get_decoder()
    for name in _STACKS:
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList):
            return layers
    raise ModelError(
        f"{type(model).__name__} has no `layers`, `h` or `blocks` in its decoder; use a decoder-only model whose "
        "layers Transformers keeps under one of these names"
    )


def adapted_modules(model: Any, target_modules: str) -> dict[str, nn.Module]:
    """Linear layers that experts adapt, by their full name; GPT-2's transposed `Conv1D` is one too.

    Args:
        model: the base.
        target_modules: `all-linear` (every linear layer but the output head) or comma-separated last names.

    Raises:
        ModelError: nothing matches; the message lists the names there are.
    """
    head = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if module is not head and (isinstance(module, nn.Linear) or is_transposed(module))
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


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer, behind gates or not, keeps its weight as (in, out), as Transformers' `Conv1D` does."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(getattr(module, "linear", module), Conv1D)


def oriented(update: Tensor, module: nn.Module) -> Tensor:
    """A dense (out, in) update as the layer keeps its weight, or the other way round; what is no matrix stays."""
    return update.T if update.dim() == 2 and is_transposed(module) else update


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer, whichever way it keeps its weight."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (int(columns), int(rows)) if is_transposed(module) else (int(rows), int(columns))


def _last_names(names: Iterable[str]) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in names}
