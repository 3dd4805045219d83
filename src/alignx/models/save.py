"""Saving a loaded model as a plain Transformers folder, read back before it counts as saved."""

from collections.abc import Sequence
from pathlib import Path

import torch

from alignx.errors import ArtifactError
from alignx.models.load import BaseModel, quiet_loading
from alignx.runs.files import read_json
from alignx.runs.folders import check_space, write_folder

SHARD_SIZE = "4GB"
_PROBE = "Why is the sky blue, and is it blue everywhere?"


def save_plain_model(folder: Path, base: BaseModel, *, shard_size: str = SHARD_SIZE) -> float:
    """Write weights as they are now, with the tokenizer, whole or not at all.

    The folder is read back with `AutoModelForCausalLM.from_pretrained` before it is put in place, so one that exists
    is one that loads.

    Args:
        folder: where the model goes; what lay there is replaced.
        base: the model.
        shard_size: largest file, in Transformers' notation.

    Returns:
        Largest absolute difference between the logits of the model and of what was read back, on one prompt.

    Raises:
        ArtifactError: the disk is too full, or what was read back does not agree within 1e-3 of the largest logit.
    """
    check_space(folder.parent, sum(weight.nbytes for weight in base.model.state_dict().values()))
    difference = 0.0

    def fill(scratch: Path) -> None:
        nonlocal difference
        with quiet_loading():
            base.model.save_pretrained(scratch, max_shard_size=shard_size)
            base.tokenizer.save_pretrained(scratch)
        difference = _difference_read_back(scratch, base, named=folder.name)

    write_folder(folder, fill)
    return difference


def model_files(folder: Path) -> list[Path]:
    """Files without which a folder is no model: its config and every file of weights that its index names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "config.json", folder / "model.safetensors"]
    shards = sorted(set(read_json(index)["weight_map"].values()))
    return [folder / "config.json", *(folder / str(shard) for shard in shards)]


def _difference_read_back(folder: Path, base: BaseModel, *, named: str) -> float:
    from transformers import AutoModelForCausalLM

    with quiet_loading():
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=base.model.dtype)
    again.to(base.model.device).eval()
    ids = base.template.encode_prompt(_PROBE)
    before, after = _logits(base.model, ids), _logits(again, ids)
    difference = float((before - after).abs().max())
    if not difference <= 1e-3 * float(before.abs().max()):
        raise ArtifactError(
            f"{named}: the saved model's logits differ by {difference:.3g} from the model's own; the weights do "
            "not survive saving, so nothing was kept"
        )
    return difference


def _logits(model: torch.nn.Module, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids], device=next(model.parameters()).device)).logits
    return logits.float()
