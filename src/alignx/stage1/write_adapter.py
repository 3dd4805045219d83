"""Writing a task vector as a plain LoRA adapter in PEFT's format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from alignx.models.low_rank import LowRankUpdate
from alignx.runs.folders import write_folder
from alignx.stage1.task_vector import TaskVector


def write_task_vector(
    folder: Path, vector: TaskVector, *, base: str = "", about: Mapping[str, Any] | None = None
) -> None:
    """Write a task vector as a LoRA adapter, whole or not at all.

    PEFT scales all modules by one alpha / r, so every module's own scale is folded into its B and alpha is r. Modules
    of a lower rank than the largest are filled up with zeros, which changes nothing. `target_modules` names every
    module in full: short names could match more modules of the base than the vector updates.

    Args:
        folder: where the adapter goes; what lay there is replaced.
        vector: updates by module.
        base: name of the base the updates are meant for, as other tools find it; empty when unknown.
        about: json values for `task_vector.json`, which says how the vector was made; none: no such file.

    Raises:
        ValueError: no modules, or a factor that is not finite.
    """
    if not vector.updates:
        raise ValueError("the task vector has no modules; an adapter needs at least one")
    rank = max(1, *(update.a.shape[0] for update in vector.updates.values()))
    tensors: dict[str, Tensor] = {}
    for name, update in vector.updates.items():
        a, b = _padded(update, rank)
        if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise ValueError(f"the task vector's `{name}` holds NaN or infinity; it cannot be kept")
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    write_folder(folder, lambda scratch: _fill(scratch, tensors, sorted(vector.updates), rank, base, about))


def _fill(
    folder: Path,
    tensors: dict[str, Tensor],
    modules: list[str],
    rank: int,
    base: str,
    about: Mapping[str, Any] | None,
) -> None:
    from peft import LoraConfig

    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=modules,
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base or None,
    )
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if about is not None:
        text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "task_vector.json").write_text(text + "\n", encoding="utf-8")


def _padded(update: LowRankUpdate, rank: int) -> tuple[Tensor, Tensor]:
    """Factors A (rank, in) and B (out, rank) whose product is the update, scale included; float32."""
    a = torch.zeros(rank, update.a.shape[1])
    b = torch.zeros(update.b.shape[0], rank)
    own = update.a.shape[0]
    a[:own] = update.a.float()
    b[:, :own] = update.b.float() * update.scale
    return a, b
