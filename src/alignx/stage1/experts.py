"""The experts of a run as files, as factors, and as updates of a base."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from alignx.config import RunConfig
from alignx.config.presets import AXIS_INSTRUCTIONS
from alignx.errors import ConfigError
from alignx.models.fold import Updates, folded
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.models.load import BaseModel
from alignx.runs.directory import RunDirectory
from alignx.stage1.adapter_files import adapter_files, check_adapter
from alignx.stage1.dense_vector import INDEX_FILE
from alignx.stage1.full import read_full_updates
from alignx.stage1.task_vector import TaskVector, read_task_vector

SHARED = "shared"


def axis_instruction(config: RunConfig, axis: str) -> str:
    """The instruction injected for an axis.

    Raises:
        ConfigError: the axis has none and is not one of the built-in ones.
    """
    instruction = config.axes[axis].instruction or AXIS_INSTRUCTIONS.get(axis, "")
    if not instruction:
        raise ConfigError(f"axis `{axis}` has no instruction; add `axes.{axis}.instruction: ...` to the config")
    return instruction


def expert_files(config: RunConfig, run: RunDirectory, name: str) -> list[Path]:
    """The files without which an expert (or `shared`, or `joint`) is not there."""
    files = adapter_files(run.adapter_folder(name))
    if config.stage1.method == "full":
        folder = run.task_vector_folder(name)
        files += [folder / INDEX_FILE, *sorted(folder.glob("*.safetensors"))]
    return files


def shared_task_vector(config: RunConfig, run: RunDirectory, base: BaseModel) -> TaskVector | None:
    """The shared expert's task vector as factors, or none when the run has no shared expert."""
    if not config.stage1.shared_expert:
        return None
    return read_task_vector(check_adapter(run, SHARED), adapted_modules(base.model, config.stage1.target_modules))


def expert_task_vectors(config: RunConfig, run: RunDirectory, base: BaseModel) -> dict[str, TaskVector]:
    """Task vectors of all axes as factors, by axis, in the config's order; of a full expert what its factors keep."""
    modules = adapted_modules(base.model, config.stage1.target_modules)
    return {axis: read_task_vector(check_adapter(run, axis), modules) for axis in config.axes}


def dense_updates(task_vector: TaskVector) -> Updates:
    """A task vector as `folded` takes it."""
    return {name: update.dense for name, update in task_vector.updates.items()}


def expert_updates(config: RunConfig, run: RunDirectory, base: BaseModel, name: str) -> Updates:
    """The whole update of an expert (or `shared`, or `joint`) as `folded` takes it, whatever it was trained by."""
    if config.stage1.method == "full":
        run.check(f"train-{name}")
        return read_full_updates(run.task_vector_folder(name), base.model)
    modules = adapted_modules(base.model, config.stage1.target_modules)
    return dense_updates(read_task_vector(check_adapter(run, name), modules))


def shared_updates(config: RunConfig, run: RunDirectory, base: BaseModel) -> Updates:
    """The shared expert's whole update; empty when the run has no shared expert."""
    return expert_updates(config, run, base, SHARED) if config.stage1.shared_expert else {}


@contextmanager
def expert_alone(config: RunConfig, run: RunDirectory, base: BaseModel, axis: str) -> Iterator[None]:
    """One expert in the base: folded, which is quickest, or behind gates where the weights are quantised."""
    if config.quantization == "none":
        with folded(base.model, expert_updates(config, run, base, axis)):
            yield
        return
    vector = expert_task_vectors(config, run, base)[axis]
    with GatedModel(base.model, {axis: vector.updates}) as gated, gated.using(torch.ones(1, 1)):
        yield
