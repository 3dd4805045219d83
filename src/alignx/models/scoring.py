"""Log-likelihood of answers, every answer of a prompt in one sequence.

Scores equal one pass an answer (within rounding) at a third of the tokens on TruthfulQA; see `answer_batch`.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from alignx.data.batches import TokenBatch, rows_by_length
from alignx.models.answer_batch import PromptAnswers, answer_batch, units_of
from alignx.models.gated import GatedModel
from alignx.models.head import head_logits
from alignx.models.load import BaseModel
from alignx.models.precision import autocast
from alignx.progress import progress
from alignx.runs import processes

__all__ = ["PromptAnswers", "answer_log_probs", "mean_target_nats"]


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
        for packed, units in units_of(base, items)
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


def _batch_log_probs(base: BaseModel, batch: Sequence[PromptAnswers], *, packed: bool) -> list[list[float]]:
    inputs = answer_batch(base, batch, packed=packed)
    hidden = base.model.get_decoder()(**inputs.tensors, use_cache=False).last_hidden_state
    predicts: list[tuple[int, int, int]] = []  # (row, position that predicts, token predicted)
    for row, (item, spans) in enumerate(zip(batch, inputs.spans, strict=True)):
        last_of_prompt = len(item.prompt_ids) - 1
        for answer, (start, end) in zip(item.answers, spans, strict=True):
            places = [last_of_prompt, *range(start, end - 1)]
            predicts += [(row, place, token) for place, token in zip(places, answer, strict=True)]
    rows, at, tokens = (torch.tensor(column, device=hidden.device) for column in zip(*predicts, strict=True))
    logits = head_logits(base.model, hidden[rows, at])
    log_probs = (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)).double().cpu()
    lengths = [end - start for spans in inputs.spans for start, end in spans]
    sums = iter(part.sum().item() for part in torch.split(log_probs, lengths))
    return [[next(sums) for _ in spans] for spans in inputs.spans]
