"""Training of a comparator's own router: language-model loss on the mix split, which AlignX's training sees too.

The rate is chosen on a quarter of the mix prompts after one pass over the others; then the router is trained from its
first values on all of them.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignx.config import RunConfig
from alignx.data.batches import pad_batch, rows_by_length
from alignx.data.prepare import read_splits
from alignx.data.template import TokenisedExample
from alignx.errors import TrainingError
from alignx.models.load import BaseModel
from alignx.models.precision import autocast
from alignx.models.scoring import mean_target_nats
from alignx.progress import progress
from alignx.runs.directory import RunDirectory
from alignx.stage2.logistic import equal_axis_weights


@dataclass(frozen=True)
class GateTraining:
    """How a router is trained.

    Attributes:
        rates: learning rates tried (Adam, falling linearly to 0).
        passes: over the mix split, once the rate is chosen.
        batch_size: prompts a step.
        held_out: one prompt in so many is left for the choice of the rate.
    """

    rates: tuple[float, ...] = (1e-3, 1e-2)
    passes: int = 2
    batch_size: int = 8
    held_out: int = 4

    def settings(self) -> dict[str, Any]:
        """For fingerprints and records."""
        return asdict(self)


def train_gates(
    config: RunConfig,
    run: RunDirectory,
    base: BaseModel,
    parameters: Sequence[nn.Parameter],
    *,
    name: str,
    settings: GateTraining,
) -> dict[str, Any]:
    """Train a router in place.

    Args:
        config: the run's config.
        run: whose mix split is used.
        base: the model with the comparator installed.
        parameters: the router's.
        name: shown as progress.
        settings: how.

    Returns:
        What was tried, chosen and reached, for a record.

    Raises:
        TrainingError: a loss is not finite.
    """
    limit = min(config.evaluate.max_tokens, base.context_tokens)
    axes, examples, ids, held = list(config.axes), [], [], []
    for number, axis in enumerate(axes):
        for place, example in enumerate(read_splits(run, axis).mix):
            examples.append(base.template.encode(example, max_tokens=limit))
            ids.append(number)
            held.append(place % settings.held_out == 0)
    weights = equal_axis_weights(torch.tensor(ids), len(axes)).float()
    job = _Job(base, examples, weights / weights.mean(), list(parameters), config, settings)
    fitted = [row for row in range(len(examples)) if not held[row]]
    chosen_on = [row for row in range(len(examples)) if held[row]]
    first = [parameter.detach().clone() for parameter in parameters]
    tried: dict[str, float] = {}
    for rate in settings.rates if len(settings.rates) > 1 else ():
        job.reset(first)
        job.fit(fitted, rate, 1, f"train {name} at {rate:g}")
        tried[f"{rate:g}"] = job.loss(chosen_on)
    best = min(settings.rates, key=lambda rate: tried.get(f"{rate:g}", 0.0))
    job.reset(first)
    losses = job.fit(list(range(len(examples))), best, settings.passes, f"train {name}")
    return {**settings.settings(), "tried": tried, "learning_rate": best, "losses": losses}


@dataclass(frozen=True)
class _Job:
    base: BaseModel
    examples: Sequence[TokenisedExample]
    weights: Tensor
    parameters: list[nn.Parameter]
    config: RunConfig
    settings: GateTraining

    def reset(self, first: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, first, strict=True):
                parameter.copy_(value)

    def fit(self, rows: Sequence[int], rate: float, passes: int, what: str) -> list[float]:
        """Mean loss of every pass."""
        n_steps = passes * -(-len(rows) // self.settings.batch_size)
        optimiser = torch.optim.Adam(self.parameters, lr=rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / n_steps)
        draw, losses = random.Random(self.config.seed), []
        with progress(what, n_steps) as advance:
            for _ in range(passes):
                order, total = list(rows), 0.0
                draw.shuffle(order)
                for start in range(0, len(order), self.settings.batch_size):
                    batch = order[start : start + self.settings.batch_size]
                    loss = self._nats(batch)
                    if not bool(torch.isfinite(loss)):
                        raise TrainingError(f"{what}: non-finite loss; set `stage1.precision: float32`")
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    schedule.step()
                    total += loss.item() * len(batch)
                    advance(1)
                losses.append(total / len(order))
        return losses

    @torch.no_grad()
    def loss(self, rows: Sequence[int]) -> float:
        """Mean loss of rows, every axis weighing the same."""
        lengths = [len(self.examples[row].prompt_ids) + len(self.examples[row].target_ids) for row in rows]
        total = sum(
            float(self._nats([rows[place] for place in places])) * len(places)
            for places in rows_by_length(lengths, self.config.evaluate.batch_size)
        )
        return total / len(rows)

    def _nats(self, rows: list[int]) -> Tensor:
        with autocast(self.base.model.device, self.config.stage1.precision):
            nats = mean_target_nats(self.base.model, pad_batch(self.examples, rows, self.base.pad_token_id))
        return (nats.cpu() * self.weights[rows]).mean()
