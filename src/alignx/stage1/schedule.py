"""The order of training: which examples make a step, injected or not, on which process, in which forward passes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.data.template import PromptTemplate, TokenisedExample


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


@dataclass(frozen=True)
class TrainingStep:
    """The examples of one optimiser step.

    Attributes:
        rows: their places in the job's examples.
        examples: their tokens.
    """

    rows: list[int]
    examples: list[TokenisedExample]

    @property
    def n_targets(self) -> int:
        """Target tokens, all processes together."""
        return sum(len(example.target_ids) for example in self.examples)

    @property
    def n_tokens(self) -> int:
        """Prompt and target tokens, all processes together."""
        return sum(map(_length, self.examples))


def training_steps(job: TrainingJob, template: PromptTemplate, config: Stage1Config) -> list[TrainingStep]:
    """All optimiser steps of a job: every example once an epoch, in an order drawn by seed.

    An epoch's last step has what is left, so it may be smaller.
    """
    draw = random.Random(job.seed)
    steps = []
    for _ in range(job.epochs):
        tokenised = [
            template.encode(
                example,
                injected=job.instructions.get(example.axis, "") if draw.random() < job.injection_rate else "",
                max_tokens=config.max_tokens,
            )
            for example in job.examples
        ]
        order = list(range(len(tokenised)))
        draw.shuffle(order)
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            steps.append(TrainingStep(rows, [tokenised[row] for row in rows]))
    return steps


def micro_batches(step: TrainingStep, max_tokens: int, world: int = 1) -> list[list[list[int]]]:
    """A step's forward passes by process: numbers of examples, at most `max_tokens` tokens a pass.

    An example longer than that has a pass of its own. All processes have equally many passes, so that they meet for
    the gradients' sum; the passes that fill up are empty.

    Args:
        step: the step.
        max_tokens: tokens a forward pass.
        world: processes.
    """
    lengths = [_length(example) for example in step.examples]
    longest_first = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    by_process: list[list[int]] = [[] for _ in range(world)]
    loads = [0] * world
    for number in longest_first:
        process = loads.index(min(loads))
        by_process[process].append(number)
        loads[process] += lengths[number]
    passes = [_first_fit(numbers, lengths, max_tokens) for numbers in by_process]
    most = max(1, *map(len, passes))
    return [found + [[]] * (most - len(found)) for found in passes]


def _first_fit(numbers: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """First fit, decreasing: at most 11/9 of the fewest passes possible, and one more (Johnson 1973)."""
    bins: list[list[int]] = []
    room: list[int] = []
    for number in numbers:
        fits = next((at for at, left in enumerate(room) if lengths[number] <= left), None)
        if fits is None:
            bins.append([number])
            room.append(max_tokens - lengths[number])
        else:
            bins[fits].append(number)
            room[fits] -= lengths[number]
    return bins


def _length(example: TokenisedExample) -> int:
    return len(example.prompt_ids) + len(example.target_ids)
