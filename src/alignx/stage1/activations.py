"""Hidden states of the last prompt token at chosen depths; layers above the deepest one are not run."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from alignx.data.batches import pad_batch, rows_by_length
from alignx.data.template import TokenisedExample
from alignx.models.layer_outputs import layer_outputs
from alignx.models.load import BaseModel
from alignx.progress import progress
from alignx.runs import processes


def depth_layers(depths: Iterable[float], n_layers: int) -> list[int]:
    """Shares of the depth -> layer numbers (the state after that layer), ascending, without repeats."""
    return sorted({max(1, round(depth * n_layers)) - 1 for depth in depths})


def last_prompt_states(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    description: str = "",
) -> Tensor:
    """Hidden states of each prompt's last token; arguments as for `iter_prompt_states`.

    Returns:
        (n, len(layers), hidden) float32.
    """
    states = torch.zeros(len(prompts), len(layers), base.model.config.get_text_config().hidden_size)
    for rows, found in iter_prompt_states(base, prompts, layers, batch_size=batch_size, description=description):
        states[rows] = found
    return states


def iter_prompt_states(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    description: str = "",
) -> Iterator[tuple[list[int], Tensor]]:
    """Hidden states of each prompt's last token, a batch of prompts at a time.

    Several processes read a batch each, and all get all of them.

    Args:
        base: the model; whatever is folded into it counts.
        prompts: token ids; those longer than the context keep their end.
        layers: decoder layers whose output is read, ascending.
        batch_size: prompts a forward pass.
        description: shown as progress; empty shows nothing.

    Yields:
        Row numbers in `prompts`, longest prompts first, and their states (b, len(layers), hidden) float32.
    """
    clipped = [TokenisedExample(list(prompt)[-base.context_tokens :], []) for prompt in prompts]
    batches = rows_by_length([len(prompt.prompt_ids) for prompt in clipped], batch_size)
    world = processes.world()
    with _progress(description, len(prompts)) as advance:
        for start in range(0, len(batches), world):
            together = batches[start : start + world]
            own = processes.own_share(together)
            found = processes.gather([_batch_states(base, clipped, rows, layers) for rows in own])
            yield from zip(together, found, strict=True)
            advance(sum(map(len, together)))


@torch.no_grad()
def _batch_states(
    base: BaseModel, prompts: Sequence[TokenisedExample], rows: list[int], layers: Sequence[int]
) -> Tensor:
    """One forward pass; (b, len(layers), hidden) float32 on the processor."""
    batch = pad_batch(prompts, rows, base.pad_token_id)
    last = batch.attention_mask.sum(dim=1) - 1
    device = base.model.device
    inputs = {"input_ids": batch.input_ids.to(device), "attention_mask": batch.attention_mask.to(device)}
    outputs = layer_outputs(base.model, layers, **inputs)
    places = torch.arange(len(rows))
    return torch.stack([hidden[places, last.to(hidden.device)].float().cpu() for hidden in outputs], dim=1)


@contextmanager
def _progress(description: str, total: int) -> Iterator[Any]:
    if not description:
        yield lambda n_done: None
        return
    with progress(description, total) as advance:
        yield advance
