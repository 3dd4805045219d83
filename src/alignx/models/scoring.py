"""Log-likelihood of answers, every answer of a prompt in one sequence.

A prompt's answers share its prefix: the sequence is prompt + answer 1 + answer 2 + ..., and the attention mask lets an
answer see the prompt and itself only, at the positions it would have alone. Scores equal one pass an answer
(within rounding) at a third of the tokens on TruthfulQA.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignx.data.batches import TokenBatch, rows_by_length
from alignx.models.gated import GatedModel
from alignx.models.head import head_logits
from alignx.models.load import BaseModel
from alignx.models.positions import takes_masks
from alignx.models.precision import autocast
from alignx.progress import progress
from alignx.runs import processes


@dataclass(frozen=True)
class PromptAnswers:
    """A prompt and the answers to score after it, as token ids; every answer has at least one token."""

    prompt_ids: list[int]
    answers: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt_ids) + sum(map(len, self.answers))


def mean_target_nats(model: Any, batch: TokenBatch) -> Tensor:
    """Mean nats a target token of each row of a batch, (b,) float32; gradients flow.

    Logits are made for target positions only.
    """
    hidden = model.get_decoder()(
        input_ids=batch.input_ids.to(model.device),
        attention_mask=batch.attention_mask.to(model.device),
        use_cache=False,
    ).last_hidden_state
    predicts = batch.target_mask[:, 1:].to(model.device)
    logits = head_logits(model, hidden[:, :-1][predicts])
    targets = batch.input_ids[:, 1:].to(model.device)[predicts]
    nats = nn.functional.cross_entropy(logits, targets, reduction="none")
    rows = predicts.nonzero()[:, 0]
    return torch.zeros(len(batch.rows), device=nats.device).index_add(0, rows, nats) / predicts.sum(dim=1)


@torch.no_grad()
def answer_log_probs(
    base: BaseModel,
    items: Sequence[PromptAnswers],
    *,
    gated: GatedModel | None = None,
    weights: Tensor | None = None,
    batch_size: int = 16,
    precision: str = "float32",
    description: str = "score",
) -> list[list[float]]:
    """Log-probability (nats, summed over tokens) of every answer of every prompt.

    Several processes score whole batches each, and all get all.

    Args:
        base: the model, and the tokenizer's pad token.
        items: prompts with their answers.
        gated: the gated layers installed in the base, if any.
        weights: (n, adapters) one row an item; None is the bare base.
        batch_size: prompts a forward pass.
        precision: `float32` (the model's own dtype), `bf16` (autocast) or `auto`; bf16 moves a loss by about 0.1%.
        description: shown as progress.
    """
    batches = [
        (packed, [units[place] for place in places])
        for packed, units in _units(base, items)
        for places in rows_by_length([unit.item.length for unit in units], batch_size)
    ]
    own = processes.own_share(batches)
    found: list[tuple[int, int, list[float]]] = []  # (item, first of its answers, their log-probabilities)
    with progress(description, sum(unit.first == 0 for _, batch in own for unit in batch)) as advance:
        for packed, batch in own:
            chosen = None if weights is None else weights[[unit.row for unit in batch]]
            with (
                gated.using(chosen) if gated is not None else nullcontext(),
                autocast(base.model.device, precision),
            ):
                sums = _batch_log_probs(base, [unit.item for unit in batch], packed=packed)
            found += [(unit.row, unit.first, part) for unit, part in zip(batch, sums, strict=True)]
            advance(sum(unit.first == 0 for unit in batch))
    scores = [[0.0] * len(item.answers) for item in items]
    for row, first, part in processes.gather(found):
        scores[row][first : first + len(part)] = part
    return scores


@dataclass(frozen=True)
class _Unit:
    """What is scored as one sequence: an item, or one of its answers, `first` in the item's count."""

    row: int
    first: int
    item: PromptAnswers


def _units(
    base: BaseModel, items: Sequence[PromptAnswers]
) -> tuple[tuple[bool, list[_Unit]], tuple[bool, list[_Unit]]]:
    """Items that can be packed, then the answers of those that cannot.

    Our mask takes the place of the model's own, a sliding window included: a longer sequence is not packed; nor is any
    for a model that takes no masks or positions.
    """
    window = getattr(base.model.config.get_text_config(), "sliding_window", None) or base.context_tokens
    window = window if takes_masks(base.model) else 0
    packed = [_Unit(row, 0, item) for row, item in enumerate(items) if item.length <= window]
    alone = [
        _Unit(row, number, PromptAnswers(item.prompt_ids, [answer]))
        for row, item in enumerate(items)
        if item.length > window
        for number, answer in enumerate(item.answers)
    ]
    return (True, packed), (False, alone)


def _batch_log_probs(base: BaseModel, batch: Sequence[PromptAnswers], *, packed: bool) -> list[list[float]]:
    width = max(item.length for item in batch)
    input_ids = torch.full((len(batch), width), base.pad_token_id)
    positions = torch.zeros(len(batch), width, dtype=torch.long)
    sees = torch.eye(width, dtype=torch.bool).repeat(len(batch), 1, 1)  # padding sees itself: no empty softmax
    predicts: list[tuple[int, int, int]] = []  # (row, position that predicts, token predicted)
    spans: list[list[int]] = []
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
            predicts += [
                (row, n_prompt - 1 if at == start else at - 1, int(input_ids[row, at])) for at in range(start, end)
            ]
            spans_of_row.append(len(answer))
            start = end
        spans.append(spans_of_row)
    device = base.model.device
    if packed:
        mask = torch.zeros(sees.shape, dtype=base.model.dtype).masked_fill(~sees, torch.finfo(base.model.dtype).min)
        mask = mask[:, None]
    else:
        mask = torch.tensor([[int(at < item.length) for at in range(width)] for item in batch])
    hidden = base.model.get_decoder()(
        input_ids=input_ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
        use_cache=False,
    ).last_hidden_state
    rows, at, tokens = (torch.tensor(column, device=device) for column in zip(*predicts, strict=True))
    logits = head_logits(base.model, hidden[rows, at])
    log_probs = (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)).double().cpu()
    lengths = [length for spans_of_row in spans for length in spans_of_row]
    sums = iter(part.sum().item() for part in torch.split(log_probs, lengths))
    return [[next(sums) for _ in spans_of_row] for spans_of_row in spans]
