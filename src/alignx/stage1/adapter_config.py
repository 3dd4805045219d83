"""PEFT's `adapter_config.json`: the keys that are understood, and a refusal of every other that means something."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignx.errors import ArtifactError
from alignx.runs.files import read_json

# Keys that do not change what the two factors of a module mean. All others must be absent, null, false or empty.
_HARMLESS = frozenset(
    "auto_mapping base_model_name_or_path ensure_weight_tying exclude_modules fan_in_fan_out inference_mode "
    "init_lora_weights layers_pattern lora_alpha lora_dropout megatron_core peft_type peft_version qalora_group_size r "
    "revision target_modules task_type use_rslora".split()
)
# Ways to begin a training that leave the base as it was; `pissa`, `olora`, `corda` and `loftq` take a part out of it.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_PICKLES = ("adapter_model.bin", "pytorch_model.bin", "adapter_model.pt", "adapter_model.pth")


@dataclass(frozen=True)
class LoraSettings:
    """What the factors of an adapter need to become updates.

    Attributes:
        rank: rows of every A and columns of every B.
        scale: alpha / r, or alpha / sqrt(r) when the adapter was trained so.
    """

    rank: int
    scale: float


def read_lora_settings(folder: Path) -> LoraSettings:
    """Read the settings of a plain LoRA adapter.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`; pickled weights are never read.

    Raises:
        ArtifactError: a file is missing or damaged, weights are pickled, or a key means what is not supported.
    """
    check_not_pickled(folder)
    path = folder / "adapter_config.json"
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ArtifactError(f"{path}: expected an object, found {type(settings).__name__}; train the adapter again")
    _check_meaning(settings, path)
    rank, alpha = _number(settings.get("r")), _number(settings.get("lora_alpha"))
    if rank is None or alpha is None or rank < 1 or not rank.is_integer():
        raise ArtifactError(f"{path}: no valid `r` and `lora_alpha`; train the adapter again with `alignx stage1`")
    return LoraSettings(int(rank), alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def check_not_pickled(folder: Path) -> None:
    """Refuse a folder whose weights are there as a pickle only.

    Raises:
        ArtifactError: they are.
    """
    if (folder / "adapter_model.safetensors").is_file():
        return
    pickled = next((name for name in _PICKLES if (folder / name).is_file()), None)
    if pickled:
        raise ArtifactError(
            f"{folder / pickled}: is a pickle, which can run code when it is read, so it is not; where you trust it, "
            "load it with PEFT and save it with `save_pretrained`, which writes adapter_model.safetensors"
        )


def _check_meaning(settings: Mapping[str, Any], path: Path) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ArtifactError(f"{path}: peft_type {kind!r:.40} is not LORA; train a LoRA adapter with `alignx stage1`")
    task = settings.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise ArtifactError(f"{path}: task_type {task!r:.40} is not CAUSAL_LM; train it with `alignx stage1`")
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise ArtifactError(
            f"{path}: init_lora_weights {start!r:.40} changes the base too; convert the adapter with PEFT's "
            "`save_pretrained(..., path_initial_model_for_weight_conversion=...)`, or train it with `alignx stage1`"
        )
    for key, value in settings.items():
        meaningless = value in (None, False, "", "none") or (isinstance(value, list | dict) and not value)
        if key not in _HARMLESS and not meaningless:
            raise ArtifactError(
                f"{path}: `{key:.60}` is {value!r:.60}, which changes what the factors mean and is not supported; "
                "train a plain LoRA adapter with `alignx stage1`"
            )


def _number(value: Any) -> float | None:
    """A finite number of a sensible size, or none."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
    return float(value) if fits else None
