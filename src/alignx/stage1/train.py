"""Training one adapter on a frozen base.

PEFT wraps the base in place; it is unwrapped again before returning, so the base serves the next axis.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from alignx.config import Stage1Config
from alignx.models.layers import adapted_modules
from alignx.models.load import BaseModel
from alignx.runs.directory import fingerprint
from alignx.runs.files import write_json
from alignx.runs.folders import write_folder
from alignx.stage1.checkpoints import Checkpoints
from alignx.stage1.loop import TrainingSummary, fit
from alignx.stage1.schedule import TrainingJob


def train_adapter(
    base: BaseModel,
    job: TrainingJob,
    config: Stage1Config,
    adapter_folder: Path,
    *,
    extra: dict[str, Any],
    made_from: str = "",
) -> TrainingSummary:
    """Train one LoRA adapter and save it in PEFT's format.

    A training that was killed goes on from its last whole checkpoint, to the same bits (on a CPU).

    Args:
        base: frozen base; bit-equal afterwards.
        job: examples, injection, rate, passes and seed.
        config: rank, batch size, precision and the rest.
        adapter_folder: where the adapter goes; `training.json` is written beside it.
        extra: further fields for `training.json`.
        made_from: fingerprint of what the adapter depends on besides the arguments, such as what is folded into the
            base; a checkpoint made from something else is not used.

    Raises:
        TrainingError: the loss is not finite, or no target token is left after cutting.
        ModelError: no layer matches `target_modules`.
    """
    from peft import LoraConfig, get_peft_model

    names = adapted_modules(base.model, config.target_modules)
    trained_from = [asdict(job), config.model_dump(mode="json", exclude={"keep"}), base.source.identity, made_from]
    checkpoints = Checkpoints(
        adapter_folder.parent / "checkpoints", fingerprint(trained_from), every=config.checkpoint_steps
    )
    torch.manual_seed(job.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(names) if config.target_modules != "all-linear" else "all-linear",
        task_type="CAUSAL_LM",
    )
    with _quiet_peft():
        peft_model = get_peft_model(base.model, lora)
    try:
        with _quiet_peft():
            parameters = {name: weight for name, weight in peft_model.named_parameters() if weight.requires_grad}
            summary = fit(base, parameters, job, config, checkpoints)
        # PEFT fills in the path the base was read from, which means nothing on another machine.
        written = peft_model.peft_config["default"]
        written.base_model_name_or_path = base.source.hub_id or base.source.identity
        written.target_modules = sorted(written.target_modules)  # a set's order differs from process to process
        _save_adapter(peft_model, adapter_folder)
    finally:
        peft_model.unload()
        if hasattr(base.model, "peft_config"):
            del base.model.peft_config
        base.model.eval()
        base.model.requires_grad_(False)
        base.model.config.use_cache = True
    write_training_record(adapter_folder.parent, job, summary, extra)
    checkpoints.remove()
    return summary


def write_training_record(folder: Path, job: TrainingJob, summary: TrainingSummary, extra: dict[str, Any]) -> None:
    """Write `training.json`: what was trained, how, and the losses on the way."""
    write_json(
        folder / "training.json",
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


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without notices that ask nothing of the user (peft 0.21, transformers 5.23)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out is set to False.*")  # PEFT sets it, as it says
        yield


def _save_adapter(peft_model: Any, adapter_folder: Path) -> None:
    """Save in PEFT's format, whole or not at all."""

    def fill(folder: Path) -> None:
        peft_model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's unfilled model card

    write_folder(adapter_folder, fill)
