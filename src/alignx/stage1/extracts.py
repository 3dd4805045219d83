"""What is extracted once the experts are there: latent space, signatures, task and parameter matrices."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import read_splits
from alignx.models.fold import folded
from alignx.models.layers import decoder_layers
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.progress import notice
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_tensors, write_tensors
from alignx.runs.matrix_file import write_matrix
from alignx.runs.temporaries import SUFFIX, temporary_prefix
from alignx.stage1.activations import depth_layers, iter_prompt_states
from alignx.stage1.experts import axis_instruction, expert_alone, expert_task_vectors, shared_updates
from alignx.stage1.latent import LatentSpace, checked_latent_space, fit_latent_space
from alignx.stage1.parameter_matrix import parameter_matrix
from alignx.stage1.state_file import StateFile


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
        with folded(base.model, shared_updates(config, run, base)):
            for axis, examples in trained.items():
                injected = encode_prompts(base, examples, injected=axis_instruction(config, axis))
                with expert_alone(config, run, base, axis):
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


def extracts_are_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether latent space, signatures, task and parameter matrices were made from the run's present experts."""
    return run.is_current("finish-stage1", _finish_inputs(config, run), *_finish_outputs(config, run))


def _finish_inputs(config: RunConfig, run: RunDirectory) -> dict[str, Any]:
    return {
        "experts": {axis: run.step_fingerprint(f"train-{axis}") for axis in config.axes},
        "latent": [config.stage1.latent_size, config.stage1.depths],
    }


def _finish_outputs(config: RunConfig, run: RunDirectory) -> list[Path]:
    outputs = [run.latent_path, run.parameter_matrix_path]
    return outputs + [path for axis in config.axes for path in (run.task_matrix_path(axis), run.signature_path(axis))]


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
