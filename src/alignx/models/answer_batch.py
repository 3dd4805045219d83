"""A prompt's answers in one sequence: prompt + answer 1 + answer 2 + ...

They share the prompt's prefix: the attention mask lets an answer see the prompt and itself only, at the positions it
would have alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.models.load import BaseModel
from alignx.models.positions import takes_masks


@dataclass(frozen=True)
class PromptAnswers:
    """A prompt and the answers to score after it, as token ids; every answer has at least one token."""

    prompt_ids: list[int]
    answers: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt_ids) + sum(map(len, self.answers))


@dataclass(frozen=True)
class AnswerBatch:
    """Inputs of one forward pass, and where the answers lie.

    Attributes:
        tensors: `input_ids`, `attention_mask` and `position_ids` of the decoder, on the model's device; (b, s), the
            mask (b, 1, s, s) added to the scores where answers share a row.
        spans: of each row, first and one past the last position of each answer.
    """

    tensors: dict[str, Tensor]
    spans: list[list[tuple[int, int]]]


@dataclass(frozen=True)
class Unit:
    """What is read as one sequence: an item, or one of its answers, `first` in the item's count."""

    row: int
    first: int
    item: PromptAnswers


def units_of(
    base: BaseModel, items: Sequence[PromptAnswers]
) -> tuple[tuple[bool, list[Unit]], tuple[bool, list[Unit]]]:
    """Items that can be packed, then the answers of those that cannot.

    Our mask takes the place of the model's own, a sliding window included: a longer sequence is not packed; nor is any
    for a model that takes no masks or positions.
    """
    window = getattr(base.model.config.get_text_config(), "sliding_window", None) or base.context_tokens
    window = window if takes_masks(base.model) else 0
    packed = [Unit(row, 0, item) for row, item in enumerate(items) if item.length <= window]
    alone = [
        Unit(row, number, PromptAnswers(item.prompt_ids, [answer]))
        for row, item in enumerate(items)
        if item.length > window
        for number, answer in enumerate(item.answers)
    ]
    return (True, packed), (False, alone)


def answer_batch(base: BaseModel, batch: Sequence[PromptAnswers], *, packed: bool) -> AnswerBatch:
    """Lay out items; without `packed` each has one answer, and the model makes its own mask."""
    width = max(item.length for item in batch)
    input_ids = torch.full((len(batch), width), base.pad_token_id)
    positions = torch.zeros(len(batch), width, dtype=torch.long)
    sees = torch.eye(width, dtype=torch.bool).repeat(len(batch), 1, 1)  # padding sees itself: no empty softmax
    spans: list[list[tuple[int, int]]] = []
    for row, item in enumerate(batch):
        n_prompt = len(item.prompt_ids)
        input_ids[row, :n_prompt] = torch.tensor(item.prompt_ids)
        positions[row, :n_prompt] = torch.arange(n_prompt)
        sees[row, :n_prompt, :n_prompt] = torch.ones(n_prompt, n_prompt, dtype=torch.bool).tril()
        start, spans_of_row = n_prompt, []
        for answer in item.answers:
            end = start + len(answer)
            input_ids[row, start:end] = torch.tensor(answer)
            positions[row, start:end] = torch.arange(n_prompt, n_prompt + len(answer))
            sees[row, start:end, :n_prompt] = True
            sees[row, start:end, start:end] = torch.ones(len(answer), len(answer), dtype=torch.bool).tril()
            spans_of_row.append((start, end))
            start = end
        spans.append(spans_of_row)
    if packed:
        mask = torch.zeros(sees.shape, dtype=base.model.dtype).masked_fill(~sees, torch.finfo(base.model.dtype).min)
        mask = mask[:, None]
    else:
        mask = torch.tensor([[int(at < item.length) for at in range(width)] for item in batch])
    tensors = {"input_ids": input_ids, "attention_mask": mask, "position_ids": positions}
    return AnswerBatch({name: tensor.to(base.model.device) for name, tensor in tensors.items()}, spans)
