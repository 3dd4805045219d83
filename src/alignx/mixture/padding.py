"""Prompts of different lengths as one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def left_padded(ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (n, longest) each, padded on the left so that answers start together."""
    width = max(map(len, ids))
    input_ids = torch.full((len(ids), width), pad_token_id)
    attention_mask = torch.zeros(len(ids), width, dtype=torch.long)
    for row, prompt in enumerate(ids):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids, attention_mask
