"""What a trained judge reads of an answer: hidden states of the embedded model, pooled over the answer.

The text is `Q: prompt` and `A: answer` on two lines for every model, so that a judge does not depend on a chat
template; what the texts hold never becomes a control token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignx.models.answer_batch import PromptAnswers
from alignx.models.answer_states import POOLS, answer_states
from alignx.models.layers import decoder_layers
from alignx.models.load import BaseModel

# Answers of one prompt that share a row of a forward pass.
_ANSWERS_A_ROW = 8


@dataclass(frozen=True)
class Reading:
    """How answers are read.

    Attributes:
        layers: decoder layers whose output is read, ascending.
        prompt_tokens: most tokens of a prompt; a longer one keeps its end.
        answer_tokens: most tokens of an answer; a longer one keeps its beginning.
        precision: `float32` or `bf16`, as resolved on the machine that trained.
    """

    layers: tuple[int, ...]
    prompt_tokens: int
    answer_tokens: int
    precision: str

    def width(self, hidden_size: int) -> int:
        """Features of an answer."""
        return len(self.layers) * len(POOLS) * hidden_size


def reading_layers(base: BaseModel, depths: Sequence[float]) -> tuple[int, ...]:
    """Shares of the depth -> layer numbers, ascending, without repeats."""
    n_layers = len(decoder_layers(base.model))
    return tuple(sorted({max(1, round(depth * n_layers)) - 1 for depth in depths}))


def encode_answers(base: BaseModel, prompt: str, answers: Sequence[str], reading: Reading) -> tuple[PromptAnswers, int]:
    """Tokens of a prompt and some of its answers, and how many tokens of answers did not fit."""
    template = base.template
    start = base.tokenizer.bos_token_id
    room = base.context_tokens - reading.answer_tokens - 1
    prompt_ids = template.encode_target(f"Q: {prompt}\nA:", end=False)[-max(1, min(reading.prompt_tokens, room)) :]
    plain = [template.encode_target(f" {answer}") for answer in answers]
    cut = sum(max(0, len(ids) - reading.answer_tokens) for ids in plain)
    begun = prompt_ids if start is None else [int(start), *prompt_ids]
    return PromptAnswers(begun, [ids[: reading.answer_tokens] for ids in plain]), cut


def answer_features(
    base: BaseModel, pairs: Sequence[tuple[str, str]], reading: Reading, *, batch_size: int = 16, description: str = ""
) -> Tensor:
    """Features of (prompt, answer) pairs; the answers of a prompt share its tokens.

    Args:
        base: the model.
        pairs: what to read.
        reading: how.
        batch_size: rows a forward pass.
        description: shown as progress; empty: none.

    Returns:
        (n, width) float32.
    """
    by_prompt: dict[str, list[int]] = {}
    for number, (prompt, _) in enumerate(pairs):
        by_prompt.setdefault(prompt, []).append(number)
    rows = [
        numbers[start : start + _ANSWERS_A_ROW]
        for numbers in by_prompt.values()
        for start in range(0, len(numbers), _ANSWERS_A_ROW)
    ]
    items = [encode_answers(base, pairs[row[0]][0], [pairs[number][1] for number in row], reading)[0] for row in rows]
    states = answer_states(
        base, items, reading.layers, batch_size=batch_size, precision=reading.precision, description=description
    )
    features = torch.zeros(len(pairs), reading.width(base.model.config.get_text_config().hidden_size))
    for row, found in zip(rows, states, strict=True):
        features[row] = found.flatten(start_dim=1)
    return features
