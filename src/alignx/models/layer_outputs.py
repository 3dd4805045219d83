"""Outputs of chosen decoder layers; layers above the deepest of them are not run."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from alignx.models.layers import decoder_layers

_call_in_progress: ContextVar[object] = ContextVar("call_in_progress", default=None)


class _DeepestLayerReached(Exception):
    pass


def layer_outputs(model: Any, layers: Sequence[int], **inputs: Tensor) -> list[Tensor]:
    """Outputs of the named layers, (b, s, hidden) each; stops after the last of them.

    Args:
        model: a Transformers causal language model.
        layers: numbers of decoder layers, ascending.
        **inputs: of its decoder, on the model's device.
    """
    found: dict[int, Tensor] = {}
    call = object()

    def keep(index: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if _call_in_progress.get() is not call:  # another thread runs the same model
                return
            found[index] = output[0] if isinstance(output, tuple) else output
            if index == layers[-1]:
                raise _DeepestLayerReached

        return hook

    modules = decoder_layers(model)
    handles = [modules[index].register_forward_hook(keep(index)) for index in layers]
    token = _call_in_progress.set(call)
    try:
        model.get_decoder()(**inputs, use_cache=False)
    except _DeepestLayerReached:
        pass
    finally:
        _call_in_progress.reset(token)
        for handle in handles:
            handle.remove()
    return [found[index] for index in layers]
