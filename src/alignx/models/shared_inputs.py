"""Which layers are given one and the same input, found by looking."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def layers_by_input(model: Any, names: Sequence[str]) -> list[list[str]]:
    """Groups of layers whose input is one tensor object and as wide, in the order of a forward pass.

    Two tokens are run through the decoder. Where that cannot be (weights without values) or a layer is not reached,
    every layer is a group of its own, which is slower and as right.

    Args:
        model: a Transformers causal language model.
        names: its linear layers of interest.

    Returns:
        Every name in one group; names that were not seen come last.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            if inputs:
                seen[name] = inputs[0]

        return hook

    if any(type(parameter.data) is not Tensor or parameter.is_meta for parameter in model.parameters()):
        return [[name] for name in names]
    handles = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        model.get_decoder()(input_ids=torch.tensor([[0, 1]], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[tuple[int, torch.device], list[str]] = {}  # inputs are all kept alive, so no number is used twice
    for name, x in seen.items():
        groups.setdefault((id(x), model.get_submodule(name).weight.device), []).append(name)
    return [*groups.values(), *([name] for name in names if name not in seen)]
