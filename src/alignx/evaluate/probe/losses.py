"""Losses of every method on the foreign answers, kept a method at a time, so that an interrupted probe goes on."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.methods import Method
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.models.precision import resolved_precision
from alignx.models.scoring import PromptAnswers
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json, write_json
from alignx.stage2.pipeline import target_losses


def method_losses(
    config: RunConfig,
    run: RunDirectory,
    base: BaseModel,
    gated: GatedModel,
    found: Sequence[Method],
    items: Sequence[PromptAnswers],
) -> dict[str, NDArray[np.float64]]:
    """Mean nats a target token of each item under each method, (n,); kept in `eval/probe/losses/`.

    Args:
        config: the run's config.
        run: the run directory.
        base: the model.
        gated: the adapters, installed in it.
        found: methods with a row of weights for each item.
        items: prompts with one answer each.
    """
    asked = fingerprint(
        [[(item.prompt_ids, item.answers) for item in items], resolved_precision(config.evaluate.precision)]
    )
    return {method.name: _losses_of(config, run, base, gated, method, items, asked) for method in found}


def _losses_of(
    config: RunConfig,
    run: RunDirectory,
    base: BaseModel,
    gated: GatedModel,
    method: Method,
    items: Sequence[PromptAnswers],
    asked: str,
) -> NDArray[np.float64]:
    path = run.evaluation_folder("probe") / "losses" / f"{method.name}.json"
    step, inputs = f"probe-loss-{method.name}", {"method": method.made_from, "asked": asked}
    if run.is_done(step, inputs, path):
        notice(f"loss of {method.name} on foreign text: up to date")
        return _read(path, len(items))
    what = f"loss of {method.name} on foreign text"
    weights = torch.zeros(len(items), len(gated.names)) if method.weights is None else method.weights
    with folded(base.model, method.updates) if method.updates else nullcontext():
        losses = target_losses(base, items, gated, weights, config, what)
    write_json(path, {"method": method.name, "nats_per_token": losses.tolist()})
    run.mark_done(step, inputs, path)
    return losses.numpy()


def _read(path: Path, n: int) -> NDArray[np.float64]:
    try:
        losses = np.array(read_json(path)["nats_per_token"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path}: damaged ({error!r:.80}); remove it and run `alignx probe` again") from error
    if losses.shape != (n,):
        raise ArtifactError(f"{path}: expected {n} losses; remove it and run `alignx probe` again")
    return losses
