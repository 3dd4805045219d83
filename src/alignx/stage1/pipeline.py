"""Stage 1, start to end: data, shared expert, one expert an axis, and what is extracted from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from alignx.config import RunConfig
from alignx.config.presets import AXIS_INSTRUCTIONS
from alignx.data.example import Example
from alignx.data.prepare import data_fingerprint, prepare_axes, read_prepared, read_splits, write_axes
from alignx.errors import ArtifactError, ConfigError
from alignx.models.fold import Updates, folded
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel, resolve_model
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_tensors, write_tensors
from alignx.stage1.activations import depth_layers, last_prompt_states
from alignx.stage1.dense_vector import INDEX_FILE
from alignx.stage1.full import read_full_updates, train_full
from alignx.stage1.latent import LatentSpace, fit_latent_space
from alignx.stage1.parameter_matrix import parameter_matrix
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.task_vector import TaskVector, read_task_vector
from alignx.stage1.train import train_adapter

SHARED = "shared"
# What changes an adapter; the rest of Stage 1's settings changes only what is extracted from it.
_TRAINING_FIELDS = (
    "method rank alpha dropout target_modules batch_size micro_batch_tokens weight_decay warmup_fraction max_tokens "
    "precision"
).split()


def axis_instruction(config: RunConfig, axis: str) -> str:
    """The instruction injected for an axis.

    Raises:
        ConfigError: the axis has none and is not one of the built-in ones.
    """
    instruction = config.axes[axis].instruction or AXIS_INSTRUCTIONS.get(axis, "")
    if not instruction:
        raise ConfigError(f"axis `{axis}` has no instruction; add `axes.{axis}.instruction: ...` to the config")
    return instruction


def run_stage1(
    config: RunConfig,
    run: RunDirectory,
    *,
    data_dir: Path | None = None,
    lazy: LazyBase | None = None,
    only: str | None = None,
) -> None:
    """Train whatever expert is missing or stale, then extract what Stage 2 needs.

    Args:
        config: the run's config.
        run: where artifacts go.
        data_dir: folder of relative data sources.
        lazy: the base, shared with later stages; none loads its own.
        only: read and train this axis alone, and leave the other axes of the config as the run has them; what all
            axes take part in is left for the start of Stage 2.

    Raises:
        AlignXError: of the step that could not be done; what was finished before stays.
    """
    lazy = lazy or LazyBase(config, run)
    resolve_model(config.model)
    for axis in config.axes:
        axis_instruction(config, axis)
    kept = {axis: read_prepared(run, axis) for axis in config.axes if only not in {None, axis}}
    prepared = prepare_axes(config, data_dir=data_dir, kept=kept)
    if only is not None and config.stage1.shared_expert:
        raise ConfigError(
            f"{run.root} has a shared expert, which learns from all axes at once; add the axis to the config and use "
            "`alignx run`"
        )
    if not run.config_path.is_file():
        lazy.load()  # a base that cannot be used leaves nothing behind
    write_axes(run, prepared, salt=config.split_salt)
    _write_config(config, run)
    if config.stage1.shared_expert and only is None:
        train_on_all_axes(
            config,
            run,
            lazy,
            name=SHARED,
            learning_rate=config.stage1.learning_rate,
            epochs=config.stage1.shared_epochs,
        )
    for axis in config.axes if only is None else [only]:
        _train_axis(config, run, lazy, axis)
    if only is None:
        finish_stage1(config, run, lazy)


def training_inputs(config: RunConfig, run: RunDirectory, axes: Sequence[str], **more: Any) -> dict[str, Any]:
    """Everything an adapter's bits depend on."""
    full = {"expert_rank": config.stage1.factor_rank} if config.stage1.method == "full" else {}
    quantised = [config.quantization] if config.quantization != "none" else []
    return {
        "model": [config.model, config.revision, config.template, config.dtype, *quantised],
        "settings": {name: getattr(config.stage1, name) for name in _TRAINING_FIELDS} | full,
        "data": {axis: data_fingerprint(run, axis) for axis in axes},
        "seed": config.seed,
        **more,
    }


def train_on_all_axes(
    config: RunConfig, run: RunDirectory, lazy: LazyBase, *, name: str, learning_rate: float, epochs: int
) -> None:
    """One expert on all axes' training prompts together, in the format used at inference (no injection)."""
    inputs = _all_axes_inputs(config, run, learning_rate, epochs)
    if run.is_done(f"train-{name}", inputs, *expert_files(config, run, name)):
        notice(f"{name}: up to date")
        return
    examples: list[Example] = [example for axis in config.axes for example in read_splits(run, axis).train]
    job = TrainingJob(name, examples, {}, 0.0, learning_rate, epochs, config.seed)
    _train(config, run, lazy, job, inputs, extra={"axes": list(config.axes)})
    run.mark_done(f"train-{name}", inputs)


def _train_axis(config: RunConfig, run: RunDirectory, lazy: LazyBase, axis: str) -> None:
    settings = config.stage1
    inputs = _axis_inputs(config, run, axis)
    if run.is_done(f"train-{axis}", inputs, *expert_files(config, run, axis)):
        notice(f"expert {axis}: up to date")
        return
    job = TrainingJob(
        axis,
        read_splits(run, axis).train,
        {axis: axis_instruction(config, axis)},
        settings.injection_rate,
        settings.learning_rate,
        settings.epochs,
        config.seed,
    )
    below = shared_updates(config, run, lazy.base)
    with folded(lazy.base.model, below):
        _train(config, run, lazy, job, inputs, extra={"on_top_of": SHARED if below else ""})
    run.mark_done(f"train-{axis}", inputs)


def _train(
    config: RunConfig, run: RunDirectory, lazy: LazyBase, job: TrainingJob, inputs: Any, *, extra: dict[str, Any]
) -> None:
    train = train_full if config.stage1.method == "full" else train_adapter
    train(lazy.base, job, config.stage1, run.adapter_folder(job.name), extra=extra, made_from=fingerprint(inputs))


def expert_files(config: RunConfig, run: RunDirectory, name: str) -> list[Path]:
    """The files without which an expert (or `shared`, or `joint`) is not there."""
    factors = run.adapter_folder(name) / "adapter_model.safetensors"
    dense = [run.task_vector_folder(name) / INDEX_FILE] if config.stage1.method == "full" else []
    return [factors, *dense]


def shared_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether the shared expert was trained on the very prompts the run's axes now have."""
    settings = config.stage1
    inputs = _all_axes_inputs(config, run, settings.learning_rate, settings.shared_epochs)
    return run.is_current(f"train-{SHARED}", inputs, *expert_files(config, run, SHARED))


def stage1_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether every artifact of Stage 1 was made from the run's present config and prompts."""
    if config.stage1.shared_expert and not shared_is_current(config, run):
        return False
    return all(
        run.is_current(f"train-{axis}", _axis_inputs(config, run, axis), *expert_files(config, run, axis))
        for axis in config.axes
    ) and run.is_current("finish-stage1", _finish_inputs(config, run), *_finish_outputs(config, run))


def _all_axes_inputs(config: RunConfig, run: RunDirectory, learning_rate: float, epochs: int) -> dict[str, Any]:
    return training_inputs(config, run, list(config.axes), learning_rate=learning_rate, epochs=epochs)


def _axis_inputs(config: RunConfig, run: RunDirectory, axis: str) -> dict[str, Any]:
    settings = config.stage1
    return training_inputs(
        config,
        run,
        [axis],
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        injection=[settings.injection_rate, axis_instruction(config, axis)],
        shared=run.step_fingerprint(f"train-{SHARED}") if settings.shared_expert else "",
    )


def _finish_inputs(config: RunConfig, run: RunDirectory) -> dict[str, Any]:
    return {
        "experts": {axis: run.step_fingerprint(f"train-{axis}") for axis in config.axes},
        "latent": [config.stage1.latent_size, config.stage1.depths],
    }


def _finish_outputs(config: RunConfig, run: RunDirectory) -> list[Path]:
    outputs = [run.latent_path, run.parameter_matrix_path]
    return outputs + [path for axis in config.axes for path in (run.task_matrix_path(axis), run.signature_path(axis))]


def _write_config(config: RunConfig, run: RunDirectory) -> None:
    """Keep the config; a rerun from the same one leaves the note of where the run was made as it is."""
    try:
        if run.read_config() == config:
            return
    except ArtifactError:
        pass
    run.write_config(config, describe_environment())


def shared_task_vector(config: RunConfig, run: RunDirectory, base: BaseModel) -> TaskVector | None:
    """The shared expert's task vector as factors, or none when the run has no shared expert."""
    if not config.stage1.shared_expert:
        return None
    return read_task_vector(run.adapter_folder(SHARED), adapted_modules(base.model, config.stage1.target_modules))


def expert_task_vectors(config: RunConfig, run: RunDirectory, base: BaseModel) -> dict[str, TaskVector]:
    """Task vectors of all axes as factors, by axis, in the config's order; of a full expert what its factors keep."""
    modules = adapted_modules(base.model, config.stage1.target_modules)
    return {axis: read_task_vector(run.adapter_folder(axis), modules) for axis in config.axes}


def dense_updates(task_vector: TaskVector) -> Updates:
    """A task vector as `folded` takes it."""
    return {name: update.dense for name, update in task_vector.updates.items()}


def expert_updates(config: RunConfig, run: RunDirectory, base: BaseModel, name: str) -> Updates:
    """The whole update of an expert (or `shared`, or `joint`) as `folded` takes it, whatever it was trained by."""
    if config.stage1.method == "full":
        return read_full_updates(run.task_vector_folder(name), base.model)
    modules = adapted_modules(base.model, config.stage1.target_modules)
    return dense_updates(read_task_vector(run.adapter_folder(name), modules))


def shared_updates(config: RunConfig, run: RunDirectory, base: BaseModel) -> Updates:
    """The shared expert's whole update; empty when the run has no shared expert."""
    return expert_updates(config, run, base, SHARED) if config.stage1.shared_expert else {}


def finish_stage1(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Latent space, signatures, task matrices and parameter matrix of the axes present."""
    inputs, outputs = _finish_inputs(config, run), _finish_outputs(config, run)
    if run.is_done("finish-stage1", inputs, *outputs):
        notice("latent space, task and parameter matrices: up to date")
        return
    base = lazy.base
    vectors = expert_task_vectors(config, run, base)
    k = config.stage1.latent_size
    write_tensors(run.parameter_matrix_path, {axis: parameter_matrix(vector, k) for axis, vector in vectors.items()})
    layers = depth_layers(config.stage1.depths, len(base.model.get_decoder().layers))
    trained = {axis: read_splits(run, axis).train for axis in config.axes}
    states = {
        axis: last_prompt_states(base, encode_prompts(base, examples), layers, description=f"read prompts {axis}")
        for axis, examples in trained.items()
    }
    space = fit_latent_space(list(states.values()), layers, k)
    if min(space.widths) < k:
        notice(
            f"latent space: {min(space.widths)} directions a depth instead of {k} (hidden size or prompts are fewer)"
        )
    write_tensors(run.latent_path, space.tensors())
    for axis, axis_states in states.items():
        write_tensors(run.signature_path(axis), {"signature": space.signature(axis_states)})
    with folded(base.model, shared_updates(config, run, base)):
        for axis, examples in trained.items():
            injected = encode_prompts(base, examples, injected=axis_instruction(config, axis))
            with _alone(config, run, base, axis):
                seen = last_prompt_states(base, injected, layers[-1:], description=f"task matrix {axis}")
            write_tensors(run.task_matrix_path(axis), {"task_matrix": space.project(seen[:, 0], len(layers) - 1)})
    lazy.check(base)
    run.mark_done("finish-stage1", inputs)


@contextmanager
def _alone(config: RunConfig, run: RunDirectory, base: BaseModel, axis: str) -> Iterator[None]:
    """One expert in the base: folded, which is quickest, or behind gates where the weights are quantised."""
    if config.quantization == "none":
        with folded(base.model, expert_updates(config, run, base, axis)):
            yield
        return
    vector = expert_task_vectors(config, run, base)[axis]
    with GatedModel(base.model, {axis: vector.updates}) as gated, gated.using(torch.ones(1, 1)):
        yield


def encode_prompts(base: BaseModel, examples: Sequence[Example], *, injected: str = "") -> list[list[int]]:
    """Prompts as token ids, in the format used at inference unless an instruction is injected."""
    return [
        base.template.encode_prompt(example.instruction, input=example.input, injected=injected) for example in examples
    ]


def read_latent_space(run: RunDirectory) -> LatentSpace:
    """The latent space of a run."""
    return LatentSpace.from_tensors(read_tensors(run.latent_path))
