"""The last step of Stage 2: the mixture head and the strength learn from the mixed model's own loss.

Experts and base stay frozen; gradients reach the head through the gates of every layer. What is minimised, averaged
over prompts with every axis weighing the same:

    nats(mixed model) + label CE(best expert, p) - entropy H(p) + kl KL(p || p of the warm start)
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alignx.config import Stage2Config
from alignx.data.batches import pad_batch
from alignx.data.template import TokenisedExample
from alignx.errors import TrainingError
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.models.precision import autocast
from alignx.models.scoring import mean_target_nats
from alignx.progress import progress
from alignx.stage2.dial import expert_scale, mixture_weights
from alignx.stage2.experts import gate_weights
from alignx.stage2.fit import SplitFeatures
from alignx.stage2.logistic import equal_axis_weights
from alignx.stage2.mocae import Head, Mocae
from alignx.stage2.targets import soft_targets


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
) -> tuple[Mocae, list[float]]:
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

    Returns:
        The trained mixture, and the mean loss of every pass.

    Raises:
        TrainingError: the loss is not finite.
    """
    settings = config.end_to_end
    m = len(mocae.axes)
    routing = mocae.route(mix.signatures)
    row_weights = equal_axis_weights(mix.axis_ids, m)
    row_weights = row_weights / row_weights.mean()
    targets = soft_targets(mix.expert_losses, config.tie_tolerance)
    weight = mocae.mixture_head.weight.clone().requires_grad_()
    bias = mocae.mixture_head.bias.clone().requires_grad_()
    log_strength = torch.tensor(mocae.strength, dtype=torch.float64).log().requires_grad_()
    temperature = mocae.mixture_head.temperature
    warm = routing.mixture_logits.log_softmax(dim=1)
    flat, full = torch.ones(m, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)

    batches_a_pass = -(-len(examples) // settings.batch_size)
    n_steps = settings.epochs * batches_a_pass
    optimiser = torch.optim.Adam([weight, bias, log_strength], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / n_steps)
    draw, losses = random.Random(seed), []
    with progress("train the mixture end to end", n_steps) as advance:
        for _ in range(settings.epochs):
            order, total = list(range(len(examples))), 0.0
            draw.shuffle(order)
            for start in range(0, len(order), settings.batch_size):
                rows = order[start : start + settings.batch_size]
                logits = Head(weight, bias, temperature).logits(routing.features[rows])
                pi = mixture_weights(logits, routing.known[rows], flat, 0 * flat, fallback=mocae.fallback)
                scale = expert_scale(pi, full, log_strength.exp())
                with (
                    gated.using(gate_weights(gated.names, mocae.axes, pi, scale).float()),
                    autocast(base.model.device, precision),
                ):
                    nats = mean_target_nats(base.model, pad_batch(examples, rows, base.pad_token_id))
                loss = (
                    row_weights[rows] * (nats.double().cpu() + _terms(logits, targets[rows], warm[rows], config))
                ).mean()
                if not bool(torch.isfinite(loss)):
                    raise TrainingError(
                        f"end to end: non-finite loss ({loss.item()}); lower `stage2.end_to_end.learning_rate`, or set "
                        "`stage1.precision: float32`"
                    )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total += loss.item() * len(rows)
                advance(1)
            losses.append(total / len(order))
    trained = Head(weight.detach(), bias.detach(), temperature)
    return replace(mocae, mixture_head=trained, strength=float(log_strength.detach().exp())), losses


def _terms(logits: Tensor, targets: Tensor, warm: Tensor, config: Stage2Config) -> Tensor:
    """(b,) label, entropy and KL terms."""
    settings = config.end_to_end
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    label = -(targets * log_p).sum(dim=1)
    entropy = -(p * log_p).sum(dim=1)
    divergence = (p * (log_p - warm)).sum(dim=1)
    return settings.label_weight * label - settings.entropy_weight * entropy + settings.kl_weight * divergence
