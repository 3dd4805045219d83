"""Training one adapter on a frozen base, with the Transformers trainer.

The loss makes logits for target tokens only: on small models the output head over prompt tokens is a fifth of the
work. PEFT wraps the base in place; it is unwrapped again before returning, so the base serves the next axis.
"""

import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from alignx.config import Stage1Config
from alignx.data.batches import pad_batch
from alignx.data.template import TokenisedExample
from alignx.errors import TrainingError
from alignx.models.layers import adapted_modules
from alignx.models.load import BaseModel
from alignx.models.precision import uses_bf16
from alignx.progress import progress
from alignx.runs.files import write_json
from alignx.stage1.schedule import TrainingJob, micro_batches


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run did.

    Attributes:
        steps: optimiser steps.
        losses: mean nats a target token, by optimiser step.
        tokens: non-pad tokens that entered the model.
        seconds: wall time of training alone.
    """

    steps: int
    losses: list[float]
    tokens: int
    seconds: float


class SupervisedLoss(nn.Module):
    """Mean nats a target token of an optimiser step; logits are made for target positions only.

    A micro-batch gives its share of the step's mean, times the number of micro-batches that the Trainer divides by:
    how a step is split changes memory and not the training.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, target_mask: Tensor, step_share: Tensor
    ) -> dict[str, Tensor]:
        """(b, s) tokens and masks, scalar micro-batches / target tokens of the step -> {"loss": scalar}."""
        hidden = self.model.get_decoder()(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        predicts = target_mask[:, 1:]
        logits = self.model.get_output_embeddings()(hidden[:, :-1][predicts]).float()
        nats = nn.functional.cross_entropy(logits, input_ids[:, 1:][predicts], reduction="sum")
        return {"loss": nats * step_share}


def train_adapter(
    base: BaseModel, job: TrainingJob, config: Stage1Config, adapter_folder: Path, *, extra: dict[str, Any]
) -> TrainingSummary:
    """Train one LoRA adapter and save it in PEFT's format.

    Args:
        base: frozen base; bit-equal afterwards.
        job: examples, injection, rate, passes and seed.
        config: rank, batch size, precision and the rest.
        adapter_folder: where the adapter goes; `training.json` is written beside it.
        extra: further fields for `training.json`.

    Raises:
        TrainingError: the loss is not finite, or no target token is left after cutting.
        ModelError: no layer matches `target_modules`.
    """
    from peft import LoraConfig, get_peft_model

    names = adapted_modules(base.model, config.target_modules)
    torch.manual_seed(job.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(names) if config.target_modules != "all-linear" else "all-linear",
        task_type="CAUSAL_LM",
    )
    with _quiet_about_checkpointing():
        peft_model = get_peft_model(base.model, lora)
    try:
        with _quiet_about_checkpointing():
            summary = _fit(base, peft_model, job, config)
        # PEFT fills in the path the base was read from, which means nothing on another machine.
        peft_model.peft_config["default"].base_model_name_or_path = base.source.hub_id or base.source.identity
        _save_adapter(peft_model, adapter_folder)
    finally:
        peft_model.unload()
        if hasattr(base.model, "peft_config"):
            del base.model.peft_config
        base.model.eval()
        base.model.requires_grad_(False)
        base.model.config.use_cache = True
    write_json(
        adapter_folder.parent / "training.json",
        {
            "name": job.name,
            "examples": len(job.examples),
            "epochs": job.epochs,
            "learning_rate": job.learning_rate,
            "injection_rate": job.injection_rate if job.instructions else 0.0,
            "seed": job.seed,
            "steps": summary.steps,
            "tokens": summary.tokens,
            "seconds": round(summary.seconds, 2),
            "losses": summary.losses,
            **extra,
        },
    )
    return summary


@contextmanager
def _quiet_about_checkpointing() -> Iterator[None]:
    """Without the notice about an attribute that PEFT and Transformers' own Trainer read (transformers 5.23)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _fit(base: BaseModel, peft_model: Any, job: TrainingJob, config: Stage1Config) -> TrainingSummary:
    micro = config.micro_batch_size or config.batch_size
    accumulation = config.batch_size // micro
    passes = micro_batches(job, base.template, config)
    if not any(example.target_ids for batch in passes for example in batch):
        raise TrainingError(f"`{job.name}`: no target token left after cutting to max_tokens={config.max_tokens}")
    n_steps = len(passes) // accumulation
    with tempfile.TemporaryDirectory(prefix="alignx-") as scratch, progress(f"train {job.name}", n_steps) as advance:
        watcher = _Watcher(job.name, advance)
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=1,  # an item of the data set is a whole micro-batch
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            learning_rate=job.learning_rate,
            weight_decay=config.weight_decay,
            lr_scheduler_type="cosine",
            warmup_steps=round(config.warmup_fraction * n_steps),
            bf16=uses_bf16(config.precision),
            use_cpu=base.model.device.type == "cpu",
            seed=job.seed,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            logging_steps=1,
            # True would log a NaN loss as 0 and carry on (transformers 5.23).
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            log_level="error",
        )
        trainer = Trainer(
            model=SupervisedLoss(base.model),
            args=arguments,
            train_dataset=_MicroBatches(passes, accumulation, base.pad_token_id),
            data_collator=_only_item,
            callbacks=[watcher],
        )
        trainer.pop_callback(_printer())
        peft_model.train()
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    if not all(bool(torch.isfinite(weight).all()) for weight in peft_model.parameters() if weight.requires_grad):
        raise TrainingError(
            f"`{job.name}`: the last step left the finite numbers; lower `stage1.learning_rate`, or set "
            "`stage1.precision: float32`"
        )
    tokens = sum(len(example.prompt_ids) + len(example.target_ids) for batch in passes for example in batch)
    return TrainingSummary(n_steps, watcher.losses, tokens, seconds)


class _MicroBatches(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, batches: Sequence[Sequence[TokenisedExample]], accumulation: int, pad_token_id: int) -> None:
        self.batches = batches
        self.accumulation = accumulation
        self.pad_token_id = pad_token_id

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        # An empty micro-batch is one token without a target: it adds nothing to the loss.
        examples = self.batches[index] or [TokenisedExample([self.pad_token_id], [])]
        batch = pad_batch(examples, list(range(len(examples))), self.pad_token_id)
        start = index - index % self.accumulation
        step = self.batches[start : start + self.accumulation]
        n_targets = sum(len(example.target_ids) for micro in step for example in micro)
        return {
            "step_share": torch.tensor(self.accumulation / max(n_targets, 1)),
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "target_mask": batch.target_mask,
        }


def _only_item(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return items[0]


class _Watcher(TrainerCallback):
    """Keeps the losses, moves the bar and stops at the first loss that is not finite."""

    def __init__(self, name: str, advance: Any) -> None:
        self.name = name
        self.advance = advance
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss, gradient = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        if loss != loss or gradient != gradient or abs(loss) == float("inf") or abs(gradient) == float("inf"):
            raise TrainingError(
                f"`{self.name}`: non-finite loss at step {state.global_step} (loss {loss}, gradient norm {gradient}); "
                "lower `stage1.learning_rate`, or set `stage1.precision: float32`"
            )
        self.losses.append(round(loss, 5))
        self.advance(1)


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    found: type[TrainerCallback] = PrinterCallback
    return found


def _save_adapter(peft_model: Any, adapter_folder: Path) -> None:
    """Save in PEFT's format, whole or not at all."""
    adapter_folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adapter-", dir=adapter_folder.parent) as scratch:
        peft_model.save_pretrained(scratch, save_embedding_layers=False)
        (Path(scratch) / "README.md").unlink(missing_ok=True)  # PEFT's unfilled model card
        if adapter_folder.exists():
            for old in adapter_folder.iterdir():
                old.unlink()
        adapter_folder.mkdir(exist_ok=True)
        # The weights go last: a folder without them is not an adapter, so a kill in between is noticed.
        for path in sorted(Path(scratch).iterdir(), key=lambda path: path.suffix == ".safetensors"):
            path.chmod(0o644)
            path.replace(adapter_folder / path.name)
