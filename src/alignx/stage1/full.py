"""Full fine-tuning of a base: every parameter learns, and the base is put back to the bit.

While it learns, the model is float32 whatever its dtype: at the rates of full fine-tuning a step is smaller than a
bfloat16 weight can show. The task vector is what was learned in float32, and the expert is, by definition, base plus
task vector, rounded to the base's dtype once.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignx.config import Stage1Config
from alignx.errors import ArtifactError, TrainingError
from alignx.models.layers import adapted_modules, oriented
from alignx.models.load import BaseModel
from alignx.models.named import named_owner, named_weight
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import fingerprint
from alignx.runs.files import write_json
from alignx.stage1.checkpoints import Checkpoints
from alignx.stage1.dense_vector import DenseVector, write_dense
from alignx.stage1.loop import TrainingSummary, fit
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.task_vector import TaskVector
from alignx.stage1.train import write_training_record
from alignx.stage1.truncated_svd import factorise
from alignx.stage1.write_adapter import write_task_vector

TASK_VECTOR = "task_vector"


def train_full(
    base: BaseModel,
    job: TrainingJob,
    config: Stage1Config,
    adapter_folder: Path,
    *,
    extra: dict[str, Any],
    made_from: str = "",
) -> TrainingSummary:
    """Train the base's own parameters, and save what they learned as a dense task vector and as factors.

    A training that was killed goes on from its last whole checkpoint, to the same bits (on a CPU).

    Args:
        base: the base; bit-equal afterwards.
        job: examples, rate, passes and seed.
        config: batch size, precision and the rest. `target_modules: all-linear` trains every parameter, embeddings and
            norms among them; named modules are trained alone.
        adapter_folder: where the factors go (PEFT's format); `task_vector`, `svd.json` and `training.json` are written
            beside it.
        extra: further fields for `training.json`.
        made_from: fingerprint of what the expert depends on besides the arguments; see `train_adapter`.

    Raises:
        TrainingError: the loss is not finite, no target token is left after cutting, or weights would be sharded.
        ModelError: no layer matches `target_modules`.
    """
    _refuse_sharding()
    modules = adapted_modules(base.model, config.target_modules)
    names = trained_names(base.model, config.target_modules)
    trained_from = [asdict(job), config.model_dump(mode="json"), base.source.identity, made_from]
    folder = adapter_folder.parent
    checkpoints = Checkpoints(folder / "checkpoints", fingerprint(trained_from), every=config.checkpoint_steps)
    torch.manual_seed(job.seed)
    base_name = base.source.hub_id or base.source.identity
    with training_weights(base.model, names) as (parameters, originals):
        summary = fit(base, parameters, job, config, checkpoints)
        learned = (
            (name, oriented(parameter.data - originals[name].float(), named_owner(base.model, name)))
            for name, parameter in parameters.items()
        )
        write_dense(folder / TASK_VECTOR, learned, about={"base_model": base_name})
    vector = DenseVector(folder / TASK_VECTOR)
    updates, dropped = factorise(vector.names(), vector.tensor, modules, config.factor_rank, device=base.model.device)
    write_json(folder / "svd.json", dropped.document())
    if processes.is_main():
        for line in (*dropped.lines(), dropped.summary(job.name, f"{folder.name}/svd.json")):
            notice(line)
    write_task_vector(adapter_folder, TaskVector(updates), base=base_name)
    write_training_record(folder, job, summary, {"method": "full", **extra})
    checkpoints.remove()
    return summary


def trained_names(model: Any, target_modules: str) -> list[str]:
    """Names of the parameters that full fine-tuning trains; tied weights are one parameter, under one name.

    Raises:
        ModelError: nothing matches.
    """
    modules = adapted_modules(model, target_modules)
    if target_modules == "all-linear":
        return [name for name, _ in model.named_parameters()]
    return [f"{name}.{part}" for name, module in modules.items() for part, _ in module.named_parameters()]


@contextmanager
def training_weights(model: Any, names: list[str]) -> Iterator[tuple[dict[str, nn.Parameter], dict[str, Tensor]]]:
    """The model in float32 with some of its parameters to be trained; on leaving, the very tensors it had are back.

    Yields:
        The parameters to train, and every original tensor, both by name.
    """
    everything = dict(model.named_parameters())
    originals = {name: parameter.data for name, parameter in everything.items()}
    try:
        for parameter in everything.values():
            # All of them, trained or not: layers of two dtypes do not multiply. A copy, so the originals stay.
            parameter.data = parameter.data.to(torch.float32, copy=True)
        chosen = {name: everything[name] for name in names}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        yield chosen, originals
    finally:
        for name, parameter in everything.items():
            parameter.grad = None
            parameter.requires_grad_(False)
            parameter.data = originals[name]
        model.eval()
        model.config.use_cache = True


def read_full_updates(folder: Path, model: Any) -> dict[str, Callable[[], Tensor]]:
    """A fully fine-tuned expert's whole update, as `folded` takes it; tensors are read when they are needed.

    Args:
        folder: its `task_vector`.
        model: the base it was taken against.

    Raises:
        ArtifactError: missing, damaged, or of another base.
    """
    vector = DenseVector(folder)
    for name in vector.names():
        try:
            shape = tuple(oriented(named_weight(model, name), named_owner(model, name)).shape)
        except AttributeError:
            shape = ()
        if shape != vector.shape(name):
            raise ArtifactError(
                f"{folder}: made for another base: `{name}` updates {vector.shape(name)}, the base has "
                f"{shape or 'no such parameter'}; train the expert again on this base"
            )
    return {name: partial(vector.tensor, name) for name in vector.names()}


def _refuse_sharding() -> None:
    """Weights cut over GPUs cannot be put back into the base that the next axis needs."""
    for kind in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in {"1", "true", "yes"}:
            raise TrainingError(
                f"stage1.method `full` does not run under {kind}: every GPU must hold the whole model; launch without "
                "it, or set `stage1.method: lora`"
            )
