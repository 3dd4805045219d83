"""Hidden states -> logits, as the architecture makes them."""

from typing import Any

import torch
from torch import Tensor


def head_logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits of chosen hidden states, without running the model's head over all of them.

    Some architectures do more than multiply: Cohere scales logits, Granite divides them, Gemma 2 and 3 cap them.
    `check_supported` compares the result with the model's own.

    Args:
        model: a Transformers causal language model.
        hidden: (..., hidden) last hidden states of its decoder.

    Returns:
        (..., vocabulary) float32, or float64 where the model is.
    """
    config = model.config.get_text_config()
    logits: Tensor = model.get_output_embeddings()(hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    scale, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None)
    if isinstance(scale, int | float):
        logits = logits * scale
    if isinstance(divisor, int | float):
        logits = logits / divisor
    return torch.tanh(logits / cap) * cap if cap else logits
