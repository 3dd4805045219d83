"""The order of training: batches of similar length, shuffled, with the injection drawn for each example."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.data.template import PromptTemplate, TokenisedExample

# Examples are sorted by length only within this many batches, so that batches stay random but padding small.
_SORT_WINDOW_BATCHES = 8


@dataclass(frozen=True)
class TrainingJob:
    """What one adapter is trained on, and how.

    Attributes:
        name: axis, `shared` or `joint`.
        examples: training examples of all epochs share these.
        instructions: axis -> instruction to inject; empty for training without injection.
        injection_rate: share of examples with the instruction.
        learning_rate: peak rate.
        epochs: passes over the examples.
        seed: of the order, of the injection and of the adapter's first values.
    """

    name: str
    examples: Sequence[Example]
    instructions: dict[str, str]
    injection_rate: float
    learning_rate: float
    epochs: int
    seed: int


def micro_batches(job: TrainingJob, template: PromptTemplate, config: Stage1Config) -> list[list[TokenisedExample]]:
    """All forward passes of a training run, in order.

    Every optimiser step is batch_size / micro_batch_size neighbours; where an epoch's last step has too few examples
    for that many, the rest of them are empty lists.
    """
    draw = random.Random(job.seed)
    batches: list[list[TokenisedExample]] = []
    for _ in range(job.epochs):
        tokenised = [
            template.encode(
                example,
                injected=job.instructions.get(example.axis, "") if draw.random() < job.injection_rate else "",
                max_tokens=config.max_tokens,
            )
            for example in job.examples
        ]
        draw.shuffle(tokenised)
        batches += _group_by_length(tokenised, config.batch_size, draw)
    micro = config.micro_batch_size or config.batch_size
    return [batch[start : start + micro] for batch in batches for start in range(0, config.batch_size, micro)]


def _group_by_length(
    examples: list[TokenisedExample], batch_size: int, draw: random.Random
) -> list[list[TokenisedExample]]:
    batches = []
    window = batch_size * _SORT_WINDOW_BATCHES
    for start in range(0, len(examples), window):
        ordered = sorted(examples[start : start + window], key=lambda item: len(item.prompt_ids) + len(item.target_ids))
        batches += [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]
    draw.shuffle(batches)
    return batches
