"""Stage 1, start to end: data, shared expert, one expert an axis, and then what is extracted from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import data_fingerprint, prepare_axes, read_prepared, read_splits, write_axes
from alignx.data.template import PromptTemplate
from alignx.errors import ArtifactError, ConfigError
from alignx.models.base_record import base_fingerprint
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.load import resolve_model
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.stage1.experts import SHARED, axis_instruction, expert_files, shared_updates
from alignx.stage1.extracts import extracts_are_current, finish_stage1
from alignx.stage1.full import train_full
from alignx.stage1.overlong import FittingExamples, fitting_examples
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.train import train_adapter

# What changes an adapter; the rest of Stage 1's settings changes only what is extracted from it.
_TRAINING_FIELDS = (
    "method rank alpha dropout target_modules batch_size micro_batch_tokens weight_decay warmup_fraction max_tokens "
    "overlong precision"
).split()


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
    fitting = _fitting(config, lazy.base.template, name, examples, {})
    job = TrainingJob(name, fitting.examples, {}, 0.0, learning_rate, epochs, config.seed)
    _train(config, run, lazy, job, inputs, extra={"axes": list(config.axes), **fitting.record})
    run.mark_done(f"train-{name}", inputs, *expert_files(config, run, name))


def _train_axis(config: RunConfig, run: RunDirectory, lazy: LazyBase, axis: str) -> None:
    inputs = _axis_inputs(config, run, axis)
    if run.is_done(f"train-{axis}", inputs, *expert_files(config, run, axis)):
        notice(f"expert {axis}: up to date")
        return
    job, dropped = axis_job(config, axis, read_splits(run, axis).train, lazy.base.template)
    below = shared_updates(config, run, lazy.base)
    with folded(lazy.base.model, below):
        _train(config, run, lazy, job, inputs, extra={"on_top_of": SHARED if below else "", **dropped})
    run.mark_done(f"train-{axis}", inputs, *expert_files(config, run, axis))


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


def _train(
    config: RunConfig, run: RunDirectory, lazy: LazyBase, job: TrainingJob, inputs: Any, *, extra: dict[str, Any]
) -> None:
    train = train_full if config.stage1.method == "full" else train_adapter
    noted = {"base": base_fingerprint(run), **extra}
    train(lazy.base, job, config.stage1, run.adapter_folder(job.name), extra=noted, made_from=fingerprint(inputs))


def shared_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether the shared expert was trained on the very prompts the run's axes now have."""
    settings = config.stage1
    inputs = _all_axes_inputs(config, run, settings.learning_rate, settings.shared_epochs)
    return run.is_current(f"train-{SHARED}", inputs, *expert_files(config, run, SHARED))


def stage1_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether every artifact of Stage 1 was made from the run's present config and prompts."""
    if config.stage1.shared_expert and not shared_is_current(config, run):
        return False
    return all(expert_is_current(config, run, axis) for axis in config.axes) and extracts_are_current(config, run)


def expert_is_current(config: RunConfig, run: RunDirectory, axis: str) -> bool:
    """Whether an axis's expert was trained from the run's present config and prompts."""
    return run.is_current(f"train-{axis}", _axis_inputs(config, run, axis), *expert_files(config, run, axis))


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


def _write_config(config: RunConfig, run: RunDirectory) -> None:
    """Keep the config; a rerun from the same one leaves the note of where the run was made as it is."""

    def is_kept() -> bool:
        try:
            return run.read_config() == config
        except ArtifactError:
            return False

    if not processes.from_main(is_kept):
        run.write_config(config, describe_environment())
