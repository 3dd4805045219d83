"""The training loop: packed examples, exact sums over micro-batches and processes, checkpoints, no silent NaN.

The loss makes logits for target tokens only: on small models the output head over prompt tokens is a fifth of the
work. Padding is never computed where the model's attention allows packing (see `models.packed`).
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from alignx.config import Stage1Config
from alignx.data.batches import pad_batch
from alignx.data.template import TokenisedExample
from alignx.errors import TrainingError
from alignx.models.fused_lora import fused_lora
from alignx.models.head import head_logits
from alignx.models.load import BaseModel
from alignx.models.packed import can_pack, pack, packed_attention, packed_lengths
from alignx.models.precision import autocast
from alignx.progress import progress
from alignx.runs import processes
from alignx.stage1.checkpoints import Checkpoints, TrainingState
from alignx.stage1.schedule import TrainingJob, TrainingStep, micro_batches, training_steps
from alignx.stage1.sharded import (
    copied_for_sharding,
    is_deepspeed,
    is_sharded,
    settle_deepspeed,
    step_seed,
    whole,
)

_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainingSummary:
    """What a training did.

    Attributes:
        steps: optimiser steps.
        losses: mean nats a target token, by optimiser step.
        tokens: tokens that entered the model, padding not counted.
        seconds: wall time of training alone.
    """

    steps: int
    losses: list[float]
    tokens: int
    seconds: float


class SupervisedLoss(nn.Module):
    """Summed nats of the target tokens of one forward pass, times the share that makes a step's mean of them.

    How a step is split into passes and over processes changes memory and not the training.
    """

    def __init__(self, model: Any, precision: str) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        # The layers that FSDP gathers one at a time; Accelerate asks the outermost module for their names.
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def forward(
        self, inputs: dict[str, Tensor], target_mask: Tensor, lengths: list[int] | None, share: float
    ) -> Tensor:
        """Token inputs of the decoder, (b, s) targets, lengths of packed sequences (none: padded) -> scalar."""
        with autocast(inputs["input_ids"].device, self.precision):
            with packed_lengths(lengths) if lengths else nullcontext():
                hidden = self.model.get_decoder()(**inputs, use_cache=False).last_hidden_state
            predicts = target_mask[:, 1:]
            logits = head_logits(self.model, hidden[:, :-1][predicts])
        targets = inputs["input_ids"][:, 1:][predicts]
        return nn.functional.cross_entropy(logits, targets, reduction="sum") * share


def learning_rate_at(step: int, n_steps: int, peak: float, warmup_fraction: float) -> float:
    """Linear warm-up to the peak, then half a cosine down towards 0; `step` counts from 0."""
    warmup = round(warmup_fraction * n_steps)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def fit(
    base: BaseModel,
    parameters: dict[str, nn.Parameter],
    job: TrainingJob,
    config: Stage1Config,
    checkpoints: Checkpoints,
) -> TrainingSummary:
    """Train the given parameters of a base on a job's examples.

    Args:
        base: the base, as it is to be run in training: adapters in place, trained parameters requiring gradients.
        parameters: what is trained, by name.
        job: examples, injection, rate, passes and seed.
        config: batch size, precision and the rest.
        checkpoints: where to go on from, and where to leave traces.

    Raises:
        TrainingError: the loss is not finite, or no target token is left after cutting.
    """
    steps = training_steps(job, base.template, config)
    if not any(step.n_targets for step in steps):
        raise TrainingError(f"`{job.name}`: no target token left after cutting to max_tokens={config.max_tokens}")
    packs = can_pack(base.model, config.max_tokens)
    with ExitStack() as stack:
        accelerator = stack.enter_context(_own_accelerator())
        sharded = is_sharded(accelerator)
        model = stack.enter_context(copied_for_sharding(base.model) if sharded else nullcontext(base.model))
        if packs:
            stack.enter_context(packed_attention(model))
        if not sharded:  # a layer's weights are gathered by its own forward pass, which fusing replaces
            stack.enter_context(fused_lora(model))
        model.train()
        optimizer = AdamW(
            _groups([weight for weight in model.parameters() if weight.requires_grad], config.weight_decay),
            lr=job.learning_rate,
            fused=not sharded,
        )
        module, prepared = accelerator.prepare(SupervisedLoss(model, config.precision), optimizer)
        own = (weight for weight in module.parameters() if weight.requires_grad)
        loop = _Loop(accelerator, module, prepared, dict(zip(parameters, own, strict=True)), base.pad_token_id, packs)
        state = _run(loop, job, config, steps, optimizer, checkpoints)
        trained = {name: whole(weight) for name, weight in loop.parameters.items()}
    if sharded:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(trained[name])
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters.values()):
        raise TrainingError(
            f"`{job.name}`: the last step left the finite numbers; lower `stage1.learning_rate`, or set "
            "`stage1.precision: float32`"
        )
    return TrainingSummary(len(steps), state.losses, sum(step.n_tokens for step in steps), state.seconds)


@dataclass(frozen=True)
class _Loop:
    """What a step is made with.

    Attributes:
        accelerator: this process's Accelerate.
        module: the loss, prepared for this job's processes.
        optimizer: prepared likewise.
        parameters: what is trained, by name; parts of it where weights are spread over processes.
        pad_token_id: a token for passes without examples, and for padding.
        packs: whether examples share a row.
    """

    accelerator: Any
    module: nn.Module
    optimizer: Any
    parameters: dict[str, nn.Parameter]
    pad_token_id: int
    packs: bool


@contextmanager
def _own_accelerator() -> Iterator[Any]:
    """Accelerate with our own precision and accumulation, whatever the launch config says about them.

    Its settings are global to the process and refuse to change. Those of another trainer, in a notebook say, are put
    aside and come back afterwards.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import GradientAccumulationPlugin

    processes.join()
    stores = (AcceleratorState._shared_state, GradientState._shared_state)
    before = [dict(store) for store in stores]
    try:
        if before[0].get("_mixed_precision", "no") != "no":
            AcceleratorState._shared_state.clear()
        accelerator = Accelerator(
            cpu=processes.device().type == "cpu",
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
        if is_deepspeed(accelerator):
            settle_deepspeed(accelerator, _MAX_GRADIENT_NORM)
        yield accelerator
    finally:
        for store, values in zip(stores, before, strict=True):
            store.clear()
            store.update(values)


def _run(
    loop: _Loop,
    job: TrainingJob,
    config: Stage1Config,
    steps: Sequence[TrainingStep],
    optimizer: AdamW,
    checkpoints: Checkpoints,
) -> TrainingState:
    """All steps that are not done yet."""
    keeps = not is_deepspeed(loop.accelerator)  # whose moments lie flattened in parts, by no parameter's name
    state = checkpoints.restore(loop.parameters, optimizer) if keeps else TrainingState(0, [], 0.0)
    with progress(f"train {job.name}", len(steps)) as advance:
        advance(state.step)
        for number in range(state.step, len(steps)):
            started = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(number, len(steps), job.learning_rate, config.warmup_fraction)
            if config.dropout > 0:
                torch.manual_seed(step_seed(job.seed, number, loop.accelerator.process_index))
            loss = _step(loop, job, steps[number], number, config.micro_batch_tokens)
            seconds = state.seconds + time.monotonic() - started
            state = TrainingState(number + 1, [*state.losses, round(loss, 5)], seconds)
            if keeps and state.step % checkpoints.every == 0 and state.step < len(steps):
                checkpoints.save(state, loop.parameters, optimizer)
            advance(1)
    return state


def _step(loop: _Loop, job: TrainingJob, step: TrainingStep, number: int, max_tokens: int) -> float:
    """One optimiser step; returns its loss, mean nats a target token over all processes."""
    accelerator = loop.accelerator
    passes = micro_batches(step, max_tokens, accelerator.num_processes)[accelerator.process_index]
    # Gradients are averaged over processes, so each process's sum counts `num_processes` times.
    share = accelerator.num_processes / max(step.n_targets, 1)
    losses = []
    for at, rows in enumerate(passes):
        last = at == len(passes) - 1
        accelerator.gradient_state._set_sync_gradients(last)  # where DeepSpeed reads whether to step
        inputs, target_mask, lengths = _batch([step.examples[row] for row in rows], loop)
        with nullcontext() if last else accelerator.no_sync(loop.module):
            loss = loop.module(inputs, target_mask, lengths, share)
            accelerator.backward(loss)
        losses.append(loss.detach())
    own = torch.stack(losses)
    total = float(accelerator.reduce(own.sum(), reduction="mean"))
    if not math.isfinite(total):
        bad = [step.rows[row] for at, rows in enumerate(passes) if not torch.isfinite(own[at]) for row in rows]
        raise _not_finite(job, number, processes.gather(bad), f"loss {total}")
    norm = accelerator.clip_grad_norm_(list(loop.parameters.values()), _MAX_GRADIENT_NORM)
    size = float(whole(norm)) if isinstance(norm, Tensor) else float(norm or 0.0)
    if not math.isfinite(size):
        raise _not_finite(job, number, step.rows, f"gradient norm {size}")
    loop.optimizer.step()
    loop.optimizer.zero_grad(set_to_none=True)
    return total


def _batch(examples: Sequence[TokenisedExample], loop: _Loop) -> tuple[dict[str, Tensor], Tensor, list[int] | None]:
    """One forward pass's inputs, targets and lengths; an empty pass is one token without a target."""
    device = loop.accelerator.device
    shown = list(examples) or [TokenisedExample([loop.pad_token_id], [])]
    if loop.packs:
        packed = pack(shown)
        inputs = {"input_ids": packed.input_ids.to(device), "position_ids": packed.position_ids.to(device)}
        return inputs, packed.target_mask.to(device), packed.lengths
    padded = pad_batch(shown, list(range(len(shown))), loop.pad_token_id)
    inputs = {"input_ids": padded.input_ids.to(device), "attention_mask": padded.attention_mask.to(device)}
    return inputs, padded.target_mask.to(device), None


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not, as in the trainers of Transformers."""
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    others = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _not_finite(job: TrainingJob, number: int, rows: Sequence[int], what: str) -> TrainingError:
    shown = ", ".join(f"“{job.examples[row].instruction[:40]}”" for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return TrainingError(
        f"`{job.name}`: non-finite loss at step {number + 1} ({what}; in the batch: {shown}{more}); "
        "lower `stage1.learning_rate`, or set `stage1.precision: float32`"
    )
