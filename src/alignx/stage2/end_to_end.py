"""The last step of Stage 2: the mixture head and the strength learn from the mixed model's own loss.

Experts and base stay frozen; gradients reach the head through the gates of every layer. What is minimised, averaged
over prompts with every axis weighing the same:

    nats(mixed model) + label CE(best expert, p) - entropy H(p) + kl KL(p || p of the warm start)

A part of the mix split is held out: the pass with the lowest nats on it is kept, the warm start (pass 0) among them.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from alignx.config import Stage2Config
from alignx.data.batches import pad_batch, rows_by_tokens
from alignx.data.template import TokenisedExample
from alignx.errors import TrainingError
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.models.precision import autocast
from alignx.models.scoring import mean_target_nats
from alignx.progress import notice, progress
from alignx.runs import processes
from alignx.stage2.dial import expert_scale, mixture_weights
from alignx.stage2.end_to_end_state import EndToEndCheckpoint, EndToEndState
from alignx.stage2.experts import gate_weights
from alignx.stage2.fit import SplitFeatures
from alignx.stage2.logistic import equal_axis_weights
from alignx.stage2.mocae import Head, Mocae, Routing
from alignx.stage2.targets import soft_targets


@dataclass(frozen=True)
class EndToEndRecord:
    """What the step did; kept in `stage2/mocae.json`.

    Attributes:
        kept_pass: whose parameters the mixture has; 0 is the warm start.
        training_losses: mean objective of every pass.
        validation_nats: mean nats a target token of the held-out prompts, every axis weighing the same, after every
            pass, first the warm start's; empty without held-out prompts.
        n_training: prompts it learned from.
        n_validation: prompts held out.
        stopped_early: whether passes were left out because the validation loss no longer fell.
    """

    kept_pass: int
    training_losses: list[float]
    validation_nats: list[float]
    n_training: int
    n_validation: int
    stopped_early: bool

    def document(self) -> dict[str, Any]:
        """For json."""
        return asdict(self)


def hold_out(axis_ids: Tensor, share: float) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows to validate on: the last `share` of each axis's rows, which lie in hash order.

    Args:
        axis_ids: (n,) axis of each row.
        share: in [0, 0.5]; above 0, an axis with two rows or more gives at least one.
    """
    validation: list[int] = []
    for axis in sorted(set(axis_ids.tolist())):
        rows = (axis_ids == axis).nonzero()[:, 0].tolist()
        held = min(max(1, round(share * len(rows))), len(rows) - 1) if share > 0 else 0
        validation += rows[len(rows) - held :]
    return sorted(set(range(len(axis_ids))) - set(validation)), validation


def train_end_to_end(
    base: BaseModel,
    gated: GatedModel,
    mocae: Mocae,
    mix: SplitFeatures,
    examples: Sequence[TokenisedExample],
    config: Stage2Config,
    *,
    precision: str,
    seed: int,
    checkpoint: EndToEndCheckpoint,
) -> tuple[Mocae, EndToEndRecord]:
    """Train the mixture head and the learned strength.

    Args:
        base: frozen base, gated.
        gated: its gates.
        mocae: the warm start.
        mix: features of the mix split.
        examples: prompt and target of its rows, in the format used at inference.
        config: Stage 2's settings.
        precision: `auto`, `float32` or `bf16`.
        seed: of the order.
        checkpoint: where to go on from, and where to leave traces; the caller removes it.

    Returns:
        The mixture with the kept pass's parameters, and what was done.

    Raises:
        TrainingError: a loss is not finite.
    """
    settings = config.end_to_end
    training, validation = hold_out(mix.axis_ids, settings.validation_share)
    objective = _Objective(base, gated, mocae, mix, examples, config, precision, (training, validation))
    parameters = objective.warm_parameters()
    optimizer = torch.optim.Adam(parameters.values(), lr=settings.learning_rate)
    batches, steps_a_pass = _batches(training, settings.batch_size, settings.epochs, seed)
    state = checkpoint.restore(parameters, optimizer)
    with progress("train the mixture end to end", len(batches)) as advance:
        advance(state.step)
        _end_pass(objective, state, parameters, validation)  # of the warm start; counted once
        for step in range(state.step, len(batches)):
            if _may_stop(state, settings.patience):
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - step / len(batches))
            optimizer.zero_grad()
            state.losses.append(objective.backward(parameters, batches[step]))
            optimizer.step()
            state.step = step + 1
            if state.step % steps_a_pass == 0:
                _end_pass(objective, state, parameters, validation, passes=state.step // steps_a_pass)
            if state.step < len(batches) and state.step % checkpoint.every == 0:
                checkpoint.save(state, parameters, optimizer)
            advance(1)
    sizes = [len(rows) for rows in batches]
    record = _record(state, sizes, steps_a_pass, (len(training), len(validation)))
    if record.kept_pass == 0:
        return mocae, record
    kept = state.best if validation else {name: value.detach() for name, value in parameters.items()}
    if not all(bool(torch.isfinite(value).all()) for value in kept.values()):
        raise _not_finite(state.losses[-1])
    head = Head(kept["weight"], kept["bias"], mocae.mixture_head.temperature)
    return mocae.with_mixture(head, float(kept["log_strength"].exp())), record


class _Objective:
    """What is minimised, as a function of the parameters (`weight` (m, 3 m), `bias` (m,), `log_strength`)."""

    def __init__(
        self,
        base: BaseModel,
        gated: GatedModel,
        mocae: Mocae,
        mix: SplitFeatures,
        examples: Sequence[TokenisedExample],
        config: Stage2Config,
        precision: str,
        parts: tuple[list[int], list[int]],
    ) -> None:
        self.base, self.gated, self.mocae = base, gated, mocae
        self.examples, self.config, self.precision = examples, config, precision
        self.lengths = [len(example.prompt_ids) + len(example.target_ids) for example in examples]
        self.routing: Routing = mocae.route(mix.signatures)
        self.warm = self.routing.mixture_logits.log_softmax(dim=1)
        self.targets = soft_targets(mix.expert_losses, config.tie_tolerance)
        self.row_weights = torch.zeros(len(examples), dtype=torch.float64)
        for rows in filter(None, parts):
            weights = equal_axis_weights(mix.axis_ids[rows], len(mocae.axes))
            self.row_weights[rows] = weights / weights.mean()

    def warm_parameters(self) -> dict[str, Tensor]:
        """Those of the warm start, to be trained."""
        head = self.mocae.mixture_head
        values = {
            "weight": head.weight,
            "bias": head.bias,
            "log_strength": torch.tensor(self.mocae.strength, dtype=torch.float64).log(),
        }
        return {name: value.clone().requires_grad_() for name, value in values.items()}

    def backward(self, parameters: dict[str, Tensor], rows: list[int]) -> float:
        """Add the gradients of a step's mean objective to the parameters' own; returns the objective.

        How the step is split into passes changes memory and not the step.
        """
        total = 0.0
        for part in self._passes(rows):
            logits, nats = self._forward(parameters, part)
            terms = _terms(logits, self.targets[part], self.warm[part], self.config)
            loss = (self.row_weights[part] * (nats + terms)).sum() / len(rows)
            if not bool(torch.isfinite(loss)):
                raise _not_finite(loss.item())
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    @torch.no_grad()
    def mean_nats(self, parameters: dict[str, Tensor], rows: list[int]) -> float:
        """Nats a target token of the mixed model, mean over rows with every axis weighing the same."""
        total = 0.0
        for part in self._passes(rows):
            _, nats = self._forward(parameters, part)
            total += float((self.row_weights[part] * nats).sum()) / len(rows)
        # Were processes to differ in the last bit, they could still not differ in when they stop.
        total = processes.from_main(lambda: total)
        if not torch.isfinite(torch.tensor(total)):
            raise _not_finite(total)
        return total

    def _passes(self, rows: list[int]) -> list[list[int]]:
        places = rows_by_tokens([self.lengths[row] for row in rows], self.config.end_to_end.micro_batch_tokens)
        return [[rows[place] for place in part] for part in places]

    def _forward(self, parameters: dict[str, Tensor], rows: list[int]) -> tuple[Tensor, Tensor]:
        """(b, m) mixture logits and (b,) nats of the mixed model, float64."""
        m = len(self.mocae.axes)
        head = Head(parameters["weight"], parameters["bias"], self.mocae.mixture_head.temperature)
        logits = head.logits(self.routing.mixture_features[rows])
        flat, full = torch.ones(m, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        pi = mixture_weights(logits, self.routing.known[rows], flat, 0 * flat, fallback=self.mocae.fallback)
        scale = expert_scale(pi, full, parameters["log_strength"].exp())
        weights = gate_weights(self.gated.names, self.mocae.axes, pi, scale).float()
        with self.gated.using(weights), autocast(self.base.model.device, self.precision):
            nats = mean_target_nats(self.base.model, pad_batch(self.examples, rows, self.base.pad_token_id))
        return logits, nats.double().cpu()


def _batches(rows: Sequence[int], batch_size: int, epochs: int, seed: int) -> tuple[list[list[int]], int]:
    """The rows of every step of all passes, each pass in an order of its own, and how many steps a pass has."""
    draw, batches = random.Random(seed), []
    for _ in range(epochs):
        order = list(rows)
        draw.shuffle(order)
        batches += [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return batches, len(batches) // epochs


def _end_pass(
    objective: _Objective, state: EndToEndState, parameters: dict[str, Tensor], validation: list[int], passes: int = 0
) -> None:
    """Validate after a pass, unless that was done before a kill, and keep its parameters where they are the best."""
    if not validation or len(state.validation_nats) > passes:
        return
    state.validation_nats.append(objective.mean_nats(parameters, validation))
    if state.best_pass == passes:
        state.best = {name: value.detach().clone() for name, value in parameters.items()}
    name = f"after pass {passes}" if passes else "warm start"
    notice(f"end to end, {name}: {state.validation_nats[-1]:.4f} nats a token on held-out prompts")


def _may_stop(state: EndToEndState, patience: int) -> bool:
    nats = state.validation_nats
    return bool(nats) and len(nats) - 1 - state.best_pass >= patience


def _record(state: EndToEndState, sizes: list[int], steps_a_pass: int, counts: tuple[int, int]) -> EndToEndRecord:
    losses = []
    for first in range(0, state.step, steps_a_pass):
        pairs = list(zip(state.losses, sizes, strict=False))[first : first + steps_a_pass]
        losses.append(sum(loss * size for loss, size in pairs) / sum(size for _, size in pairs))
    kept = state.best_pass if state.validation_nats else len(losses)
    record = EndToEndRecord(kept, losses, state.validation_nats, *counts, stopped_early=state.step < len(sizes))
    if state.validation_nats:
        name = f"pass {kept}" if kept else "the warm start"
        notice(f"end to end: keeping {name}, the lowest held-out loss of {len(state.validation_nats)}")
    return record


def _terms(logits: Tensor, targets: Tensor, warm: Tensor, config: Stage2Config) -> Tensor:
    """(b,) label, entropy and KL terms."""
    settings = config.end_to_end
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    label = -(targets * log_p).sum(dim=1)
    entropy = -(p * log_p).sum(dim=1)
    divergence = (p * (log_p - warm)).sum(dim=1)
    return settings.label_weight * label - settings.entropy_weight * entropy + settings.kl_weight * divergence


def _not_finite(loss: float) -> TrainingError:
    return TrainingError(
        f"end to end: non-finite loss ({loss}); lower `stage2.end_to_end.learning_rate`, or set "
        "`stage1.precision: float32`"
    )
