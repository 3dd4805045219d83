"""Token lists -> padded tensors, grouped by length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.data.template import TokenisedExample


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded sequences.

    Attributes:
        input_ids: (b, s) prompt and target tokens.
        attention_mask: (b, s) 1 on real tokens.
        target_mask: (b, s) True on target tokens.
        rows: positions of the rows in the list they were taken from.
    """

    input_ids: Tensor
    attention_mask: Tensor
    target_mask: Tensor
    rows: list[int]


def pad_batch(examples: Sequence[TokenisedExample], rows: list[int], pad_token_id: int) -> TokenBatch:
    """Pad the named rows of a list to one length."""
    width = max(len(examples[row].prompt_ids) + len(examples[row].target_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros(len(rows), width, dtype=torch.long)
    target_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for position, row in enumerate(rows):
        prompt, target = examples[row].prompt_ids, examples[row].target_ids
        length = len(prompt) + len(target)
        input_ids[position, :length] = torch.tensor(prompt + target)
        attention_mask[position, :length] = 1
        target_mask[position, len(prompt) : length] = True
    return TokenBatch(input_ids, attention_mask, target_mask, rows)


def rows_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first, so that an out-of-memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def rows_by_tokens(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first, of at most `max_tokens` tokens with padding.

    A row longer than that is a batch of its own.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        # The first row of a batch is its longest, which the others are padded to.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
