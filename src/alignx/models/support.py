"""Whether a base can be aligned, tried before anything is trained on it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alignx.errors import ModelError
from alignx.models.head import head_logits
from alignx.models.layers import adapted_modules, decoder_layers

_TOLERANCE = 1e-2  # a bf16 base rounds; a logit scale that was not seen is off by far more


def check_supported(model: Any, target_modules: str) -> None:
    """Refuse a base that experts could not be trained on or mixed in exactly.

    Raises:
        ModelError: no decoder layers or linear layers are found, an adapted layer does not see every token, or the head
            does more than `head_logits` knows.
    """
    decoder_layers(model)
    modules = adapted_modules(model, target_modules)
    # PEFT refuses some of their layers and Transformers' kernels read the others' weights past the layer's forward.
    if "mamba" in str(model.config.model_type):
        raise ModelError(
            f"{type(model).__name__} is a state-space model, whose layers LoRA cannot adapt exactly; use a transformer"
        )
    _check_rows(model, modules)
    _check_head(model)


@torch.no_grad()
def _check_rows(model: Any, modules: Mapping[str, nn.Module]) -> None:
    """Every adapted layer must get all tokens in the batch's order, or a row's mixture could not find its tokens."""
    rows, length = 2, 3
    seen: dict[str, bool] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = tuple(inputs[0].shape[:-1]) in {(rows, length), (rows * length,)}

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in modules.items()]
    try:
        model.get_decoder()(input_ids=_few_ids(model, rows, length), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    stray = [name for name in modules if not seen.get(name, False)]
    if stray:
        raise ModelError(
            f"`{stray[0]}` and {len(stray) - 1} more layers of {type(model).__name__} do not get every token (routed "
            "experts?), so prompts in a batch could not be mixed apart; name other layers in `stage1.target_modules`"
        )


def _few_ids(model: Any, rows: int, length: int) -> Tensor:
    """Token ids (rows, length) that any vocabulary has."""
    ids = torch.arange(rows * length, device=model.device).view(rows, length)
    return ids % int(model.config.get_text_config().vocab_size)


@torch.no_grad()
def _check_head(model: Any) -> None:
    ids = _few_ids(model, 1, 4)
    expected = model(input_ids=ids, use_cache=False).logits.float()
    found = head_logits(model, model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    if found.shape != expected.shape or not bool((found - expected).norm() <= _TOLERANCE * expected.norm()):
        raise ModelError(
            f"{type(model).__name__} makes its logits in a way this version does not know (neither a scale nor a cap); "
            "use another base"
        )
