"""Stage 1, start to end: data, shared expert, one expert an axis, and what is extracted from them."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.config.presets import AXIS_INSTRUCTIONS
from alignx.data.example import Example
from alignx.data.prepare import data_fingerprint, prepare_axes, read_prepared, read_splits, write_axes
from alignx.data.template import PromptTemplate
from alignx.errors import ArtifactError, ConfigError
from alignx.models.base_record import base_fingerprint
from alignx.models.fold import folded
from alignx.models.layers import adapted_modules, decoder_layers
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel, resolve_model
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_tensors, write_tensors
from alignx.runs.matrix_file import write_matrix
from alignx.runs.temporaries import SUFFIX, temporary_prefix
from alignx.stage1.activations import depth_layers, iter_prompt_states
from alignx.stage1.adapter_files import adapter_files, check_adapter
from alignx.stage1.latent import LatentSpace, checked_latent_space, fit_latent_space
from alignx.stage1.overlong import FittingExamples, fitting_examples
from alignx.stage1.parameter_matrix import parameter_matrix
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.state_file import StateFile
from alignx.stage1.task_vector import TaskVector, read_task_vector
from alignx.stage1.train import train_adapter

SHARED = "shared"
# What changes an adapter; the rest of Stage 1's settings changes only what is extracted from it.
_TRAINING_FIELDS = (
    "method rank alpha dropout target_modules batch_size micro_batch_tokens weight_decay warmup_fraction max_tokens "
    "overlong precision"
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
    if config.stage1.method == "full":
        raise ConfigError(
            "stage1.method `full` is not available in this version; set `method: lora`, or use the config's lora twin"
        )
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
    if not processes.from_main(run.config_path.is_file):
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
    return {
        "model": [config.model, config.revision, config.template, config.dtype],
        "settings": {name: getattr(config.stage1, name) for name in _TRAINING_FIELDS},
        "data": {axis: data_fingerprint(run, axis) for axis in axes},
        "seed": config.seed,
        **more,
    }


def train_on_all_axes(
    config: RunConfig, run: RunDirectory, lazy: LazyBase, *, name: str, learning_rate: float, epochs: int
) -> None:
    """One LoRA on all axes' training prompts together, in the format used at inference (no injection)."""
    inputs = _all_axes_inputs(config, run, learning_rate, epochs)
    folder = run.adapter_folder(name)
    if run.is_done(f"train-{name}", inputs, folder / "adapter_model.safetensors"):
        notice(f"{name}: up to date")
        return
    examples: list[Example] = [example for axis in config.axes for example in read_splits(run, axis).train]
    fitting = _fitting(config, lazy.base.template, name, examples, {})
    job = TrainingJob(name, fitting.examples, {}, 0.0, learning_rate, epochs, config.seed)
    extra = {"axes": list(config.axes), "base": base_fingerprint(run), **fitting.record}
    train_adapter(lazy.base, job, config.stage1, folder, extra=extra, made_from=fingerprint(inputs))
    run.mark_done(f"train-{name}", inputs, *adapter_files(folder))


def _train_axis(config: RunConfig, run: RunDirectory, lazy: LazyBase, axis: str) -> None:
    settings = config.stage1
    inputs = _axis_inputs(config, run, axis)
    folder = run.adapter_folder(axis)
    if run.is_done(f"train-{axis}", inputs, folder / "adapter_model.safetensors"):
        notice(f"expert {axis}: up to date")
        return
    job, dropped = axis_job(config, axis, read_splits(run, axis).train, lazy.base.template)
    below = shared_task_vector(config, run, lazy.base)
    with folded(lazy.base.model, dense_updates(below)) if below else nullcontext():
        extra = {"on_top_of": SHARED if below else "", "base": base_fingerprint(run), **dropped}
        train_adapter(lazy.base, job, settings, folder, extra=extra, made_from=fingerprint(inputs))
    run.mark_done(f"train-{axis}", inputs, *adapter_files(folder))


def axis_job(
    config: RunConfig, axis: str, examples: Sequence[Example], template: PromptTemplate
) -> tuple[TrainingJob, dict[str, Any]]:
    """How an axis's expert is trained on those of its examples that fit, and a record of the others."""
    settings = config.stage1
    instructions = {axis: axis_instruction(config, axis)}
    fitting = _fitting(config, template, axis, examples, instructions if settings.injection_rate else {})
    rates = settings.injection_rate, settings.learning_rate
    return TrainingJob(axis, fitting.examples, instructions, *rates, settings.epochs, config.seed), fitting.record


def _fitting(
    config: RunConfig, template: PromptTemplate, name: str, examples: Sequence[Example], instructions: dict[str, str]
) -> FittingExamples:
    found = fitting_examples(name, examples, template, config.stage1, instructions)
    if found.line:
        notice(f"{name}: {found.line} ({config.stage1.max_tokens} tokens)")
    return found


def shared_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether the shared expert was trained on the very prompts the run's axes now have."""
    settings = config.stage1
    inputs = _all_axes_inputs(config, run, settings.learning_rate, settings.shared_epochs)
    return run.is_current(f"train-{SHARED}", inputs, run.adapter_folder(SHARED) / "adapter_model.safetensors")


def stage1_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether every artifact of Stage 1 was made from the run's present config and prompts."""
    if config.stage1.shared_expert and not shared_is_current(config, run):
        return False
    return all(expert_is_current(config, run, axis) for axis in config.axes) and extracts_are_current(config, run)


def expert_is_current(config: RunConfig, run: RunDirectory, axis: str) -> bool:
    """Whether an axis's expert was trained from the run's present config and prompts."""
    weights = run.adapter_folder(axis) / "adapter_model.safetensors"
    return run.is_current(f"train-{axis}", _axis_inputs(config, run, axis), weights)


def extracts_are_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether latent space, signatures, task and parameter matrices were made from the run's present experts."""
    return run.is_current("finish-stage1", _finish_inputs(config, run), *_finish_outputs(config, run))


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

    def is_kept() -> bool:
        try:
            return run.read_config() == config
        except ArtifactError:
            return False

    if not processes.from_main(is_kept):
        run.write_config(config, describe_environment())


def shared_task_vector(config: RunConfig, run: RunDirectory, base: BaseModel) -> TaskVector | None:
    """The shared expert's task vector, or none when the run has no shared expert."""
    if not config.stage1.shared_expert:
        return None
    return read_task_vector(check_adapter(run, SHARED), adapted_modules(base.model, config.stage1.target_modules))


def expert_task_vectors(config: RunConfig, run: RunDirectory, base: BaseModel) -> dict[str, TaskVector]:
    """Task vectors of all axes, by axis, in the config's order."""
    modules = adapted_modules(base.model, config.stage1.target_modules)
    return {axis: read_task_vector(check_adapter(run, axis), modules) for axis in config.axes}


def dense_updates(task_vector: TaskVector) -> dict[str, Any]:
    """A task vector as `folded` takes it."""
    return {name: update.dense for name, update in task_vector.updates.items()}


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
    layers = depth_layers(config.stage1.depths, len(decoder_layers(base.model)))
    trained = {axis: read_splits(run, axis).train for axis in config.axes}
    with tempfile.TemporaryDirectory(prefix=temporary_prefix("states"), suffix=SUFFIX, dir=run.root) as scratch:
        space = _write_latent(run, base, trained, layers, k, Path(scratch))
        below = shared_task_vector(config, run, base)
        with folded(base.model, dense_updates(below)) if below else nullcontext():
            for axis, examples in trained.items():
                injected = encode_prompts(base, examples, injected=axis_instruction(config, axis))
                with folded(base.model, dense_updates(vectors[axis])):
                    seen = iter_prompt_states(base, injected, layers[-1:], description=f"task matrix {axis}")
                    file = StateFile.write(Path(scratch) / axis, seen)
                coordinates = ((rows, space.project(states[:, 0], len(layers) - 1)) for rows, states in file.batches())
                shape = (len(examples), space.widths[-1])
                write_matrix(run.task_matrix_path(axis), "task_matrix", shape, coordinates)
    lazy.check(base)
    run.mark_done("finish-stage1", inputs, *outputs)


def _write_latent(
    run: RunDirectory,
    base: BaseModel,
    trained: Mapping[str, Sequence[Example]],
    layers: Sequence[int],
    k: int,
    scratch: Path,
) -> LatentSpace:
    """Fit and write the latent space and every axis's signatures; states wait on disk, never all in memory."""
    files = {}
    for axis, examples in trained.items():
        states = iter_prompt_states(base, encode_prompts(base, examples), layers, description=f"read prompts {axis}")
        files[axis] = StateFile.write(scratch / axis, states)
    space = fit_latent_space((file.states() for file in files.values()), layers, k)
    if min(space.widths) < k:
        notice(
            f"latent space: {min(space.widths)} directions a depth instead of {k} (hidden size or prompts are fewer)"
        )
    write_tensors(run.latent_path, space.tensors())
    for axis, file in files.items():
        signatures = ((rows, space.signature(states)) for rows, states in file.batches())
        write_matrix(run.signature_path(axis), "signature", (len(file.rows), sum(space.widths)), signatures)
    return space


def encode_prompts(base: BaseModel, examples: Sequence[Example], *, injected: str = "") -> list[list[int]]:
    """Prompts as token ids, in the format used at inference unless an instruction is injected."""
    return [
        base.template.encode_prompt(example.instruction, input=example.input, injected=injected) for example in examples
    ]


def read_latent_space(run: RunDirectory) -> LatentSpace:
    """The latent space of a run.

    Raises:
        ArtifactError: it is missing, damaged or not whole.
    """
    run.check("finish-stage1")
    return checked_latent_space(read_tensors(run.latent_path), run.latent_path)
