"""Whether a model's positions and masks can be told to it, which is what several sequences in one row need."""

import inspect
from typing import Any

import torch

from alignx.models.rounding import equal_but_for_rounding


def takes_positions(model: Any) -> bool:
    """Whether position ids mean something to a model; with ALiBi a token's place in the row is its position."""
    config = model.config.get_text_config()
    return (
        not getattr(config, "alibi", False)
        and "position_ids" in inspect.signature(model.get_decoder().forward).parameters
    )


@torch.no_grad()
def takes_masks(model: Any) -> bool:
    """Whether a mask of (tokens x tokens) and positions keep two short sequences in one row apart, tried on them."""
    if not takes_positions(model):
        return False
    decoder, device, dtype = model.get_decoder(), model.device, model.dtype
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config().vocab_size
    parts = [torch.randint(0, vocabulary, (1, length), generator=generator).to(device) for length in (5, 7)]
    positions = torch.cat([torch.arange(part.shape[1]) for part in parts])[None].to(device)
    sees = torch.zeros(12, 12, dtype=torch.bool)
    sees[:5, :5], sees[5:, 5:] = torch.ones(5, 5).bool().tril(), torch.ones(7, 7).bool().tril()
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[None, None].to(device)
    alone = torch.cat([decoder(input_ids=part, use_cache=False).last_hidden_state[0] for part in parts])
    try:
        together = decoder(
            input_ids=torch.cat(parts, dim=1), attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state[0]
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError):  # it takes no such mask
        return False
    return equal_but_for_rounding(together, alone)
