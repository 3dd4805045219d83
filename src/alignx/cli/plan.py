"""`alignx plan`: what a run will need, before anything is downloaded."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import app
from alignx.config import AxisConfig, RunConfig, load_config
from alignx.errors import ConfigError


@app.command()
def plan(
    model: Annotated[
        str | None, typer.Option(help="Preset, hub id, local folder or GGUF file; default the config's.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML config; default three built-in axes.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to plan for; default those here; 0 is the processor.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="GiB of one GPU; default the one here, else 80.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what memory and time a run will need, and which settings fit. No weights are read or downloaded."""
    settings = _settings(model, config)
    if gpus is not None and gpus < 0:
        raise ConfigError(f"--gpus {gpus}: give 0 for the processor, or a number of GPUs")
    if gpu_memory is not None and not 0 < gpu_memory < float("inf"):
        raise ConfigError(f"--gpu-memory {gpu_memory:g}: give the GiB of one GPU, e.g. --gpu-memory 80")
    if gpus == 0 and gpu_memory is not None:
        raise ConfigError("--gpu-memory contradicts --gpus 0; leave one of them out")
    from alignx.cli.show_plan import show_plan
    from alignx.models.precision import uses_bf16
    from alignx.plan.estimate import make_plan
    from alignx.plan.machine import describe_machine
    from alignx.plan.shapes import read_config

    read_config(settings.model, revision=settings.revision)  # a name that cannot be used fails before measuring
    machine = describe_machine(gpus=gpus, gpu_memory_gb=gpu_memory, bf16=uses_bf16(settings.stage1.precision))
    made = make_plan(settings, machine)
    if as_json:
        typer.echo(json.dumps(asdict(made)))
    else:
        show_plan(made)


def _settings(model: str | None, config: Path | None) -> RunConfig:
    """The config asked about; without a file, the built-in axes under the defaults."""
    if config is not None:
        loaded = load_config(config)
        return loaded if model is None else loaded.model_copy(update={"model": model})
    if model is None:
        raise ConfigError("nothing to plan; give --model, e.g. --model mistral-7b, or --config CONFIG.yaml")
    axes = {
        "helpful": AxisConfig(dataset="alpaca"),
        "harmless": AxisConfig(dataset="beavertails"),
        "honest": AxisConfig(dataset="truthfulqa"),
    }
    return RunConfig(model=model, axes=axes)
