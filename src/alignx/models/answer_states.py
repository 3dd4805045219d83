"""Hidden states of answers at chosen depths, pooled: what a small head can read a verdict from."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from alignx.data.batches import rows_by_length
from alignx.models.answer_batch import PromptAnswers, answer_batch, units_of
from alignx.models.layer_outputs import layer_outputs
from alignx.models.load import BaseModel
from alignx.models.precision import autocast
from alignx.progress import progress

POOLS = ("mean", "last")


@torch.no_grad()
def answer_states(
    base: BaseModel,
    items: Sequence[PromptAnswers],
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    precision: str = "float32",
    description: str = "",
) -> list[Tensor]:
    """States of every answer of every prompt, each as it would be alone after its prompt.

    Args:
        base: the model, and the tokenizer's pad token.
        items: prompts with their answers.
        layers: decoder layers whose output is read, ascending.
        batch_size: prompts a forward pass.
        precision: `float32`, `bf16` (autocast) or `auto`.
        description: shown as progress; empty: none.

    Returns:
        Of each item (answers, layers, 2, hidden) float32: the mean over the answer's tokens, and its last token.
    """
    hidden_size = base.model.config.get_text_config().hidden_size
    found = [torch.zeros(len(item.answers), len(layers), len(POOLS), hidden_size) for item in items]
    total = sum(len(item.answers) for item in items)
    with ExitStack() as stack:
        advance = stack.enter_context(progress(description, total)) if description else None
        for packed, units in units_of(base, items):
            for places in rows_by_length([unit.item.length for unit in units], batch_size):
                batch = [units[place] for place in places]
                inputs = answer_batch(base, [unit.item for unit in batch], packed=packed)
                with autocast(base.model.device, precision):
                    outputs = layer_outputs(base.model, layers, **inputs.tensors)
                for row, (unit, spans) in enumerate(zip(batch, inputs.spans, strict=True)):
                    for number, (start, end) in enumerate(spans, start=unit.first):
                        states = torch.stack([output[row, start:end].float() for output in outputs])
                        found[unit.row][number] = torch.stack([states.mean(dim=1), states[:, -1]], dim=1).cpu()
                if advance is not None:
                    advance(sum(map(len, inputs.spans)))
    return found
