"""One axis at a time: an expert added to a run directory, new or not, from data named on a command line."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from alignx.config import AxisConfig, RunConfig, SplitSizes
from alignx.config.axis import SCHEMA_FIELDS
from alignx.config.files import check_settings, parse_config
from alignx.config.presets import AXIS_INSTRUCTIONS
from alignx.data.prepare import prepare_axes, read_line, read_prepared
from alignx.errors import ConfigError
from alignx.models.lazy import LazyBase
from alignx.models.load import load_template
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json
from alignx.runs.lock import writing
from alignx.stage1.extracts import finish_stage1
from alignx.stage1.keep import keep_artifacts
from alignx.stage1.pipeline import axis_job, run_stage1
from alignx.stage1.shown_example import ShownExample, first_example

# The axis that each data set stands for in the paper.
AXIS_OF_DATASET = {"alpaca": "helpful", "beavertails": "harmless", "truthfulqa": "honest"}


def add_axis(
    out: Path,
    *,
    model: str,
    axis: str,
    data: AxisConfig,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    keep: Iterable[str] = (),
    finish: bool = False,
) -> None:
    """Train one axis's expert into a run directory, new or not; the other axes stay as they are.

    Experts made one by one stand alone (`shared_expert: false`): what all axes share cannot be learned before all
    are known.

    Args:
        out: run directory.
        model: base model; must be the run's own when there is one.
        axis: name of the axis; trained again when the run has it and something about it changed.
        data: its data.
        seed: of a new run.
        settings: fields of `Stage1Config` for a run without an expert yet; one that has some keeps its own.
        keep: fields of `KeepConfig` to switch on, for the whole run.
        finish: also extract what all axes take part in; else Stage 2 does it when it starts.

    Raises:
        ConfigError: another model or other settings than the run's.
        AlignXError: of the step that could not be done.
    """
    with writing(out) as run:
        config = _config_with_axis(
            run, model=model, axis=axis, data=data, seed=seed, settings=settings or {}, keep=keep
        )
        lazy = LazyBase(config, run)
        run_stage1(config, run, lazy=lazy, only=axis)
        if finish:
            finish_stage1(config, run, lazy)
        keep_artifacts(config, run, lazy)


def training_example(
    out: Path,
    *,
    model: str,
    axis: str,
    data: AxisConfig,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> ShownExample:
    """The first example that `add_axis` with the same arguments would train on, as it would; trains and writes nothing.

    Only the tokenizer is loaded.

    Raises:
        AlignXError: as `add_axis` would.
    """
    run = RunDirectory(out)
    config = _config_with_axis(run, model=model, axis=axis, data=data, seed=seed, settings=settings or {}, keep=())
    template = load_template(config.model, template=config.template, revision=config.revision)
    kept = {other: read_prepared(run, other) for other in config.axes if other != axis}
    splits = prepare_axes(config, data_dir=None, kept=kept)[axis].splits
    return first_example(axis_job(config, axis, splits.train, template)[0], template, config.stage1)


def _config_with_axis(
    run: RunDirectory,
    *,
    model: str,
    axis: str,
    data: AxisConfig,
    seed: int,
    settings: Mapping[str, Any],
    keep: Iterable[str],
) -> RunConfig:
    """The run's config with this axis's data; of a run that is not there yet, a new one."""
    if run.config_path.is_file():
        config = run.read_config()
        if config.model != model:
            raise ConfigError(
                f"--model {model}: {run.root} was made with `{config.model}`; use that model or another --out"
            )
        asked = {name: value for name, value in settings.items() if getattr(config.stage1, name) != value}
        if asked and _has_experts(config, run):
            name, given = next(iter(asked.items()))
            raise ConfigError(
                f"{name} {given}: {run.root} was made with {getattr(config.stage1, name)}; its experts must agree, "
                "so use that value or another --out"
            )
        document = config.model_dump(mode="json")
        document["stage1"] |= asked
    else:
        stage1 = {"shared_expert": False, **settings}
        document = {"model": model, "seed": seed, "axes": {}, "stage1": stage1}
    document["stage1"].setdefault("keep", {}).update(dict.fromkeys(keep, True))
    document["axes"][axis] = data.model_dump(mode="json")
    return parse_config(document, source=f"axis `{axis}`")


def _has_experts(config: RunConfig, run: RunDirectory) -> bool:
    return any((run.adapter_folder(axis) / "adapter_model.safetensors").is_file() for axis in config.axes)


def parse_dataset(
    text: str,
    *,
    axis: str | None,
    instruction: str,
    splits: SplitSizes,
    settings: Mapping[str, Any] | None = None,
) -> tuple[str, AxisConfig]:
    """Read `alpaca`, `beavertails=PATH`, `pairs=PATH` or `truthfulqa=sample` as an axis's name and data.

    Args:
        text: schema, and where the data lie unless they come from the hub.
        axis: the axis's name; none takes the paper's for that data set.
        instruction: injected axis instruction; empty takes the built-in one.
        splits: prompts a split.
        settings: further keys of the axis, as a config has them.

    Raises:
        ConfigError: unknown data set, an axis without name or instruction, or data that cannot serve.
    """
    dataset, _, source = text.partition("=")
    if dataset not in SCHEMA_FIELDS:
        near = get_close_matches(dataset, SCHEMA_FIELDS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"give {', '.join(SCHEMA_FIELDS)}, or NAME=PATH"
        raise ConfigError(f"--dataset {text}: unknown data set; {hint}")
    name = axis or AXIS_OF_DATASET.get(dataset)
    if name is None:
        raise ConfigError(f"--dataset {text}: your own data need a name for their axis; add --axis NAME")
    if not instruction and name not in AXIS_INSTRUCTIONS:
        raise ConfigError(f'--axis {name}: no built-in instruction; add --instruction "Be ..."')
    raw = {"dataset": dataset, "source": source, "instruction": instruction, "splits": splits.model_dump()}
    return name, check_settings(AxisConfig, {**raw, **(settings or {})}, source=f"axis `{name}`")


def describe_data(out: Path, axis: str) -> list[str]:
    """What was read for an axis, what was dropped and why, and what was too long to train on; one line each.

    Raises:
        ArtifactError: the axis is not in the run, or a file is damaged.
    """
    run = RunDirectory(out)
    lines = [read_line(axis, part) for part in read_json(run.splits_path)["axes"][axis]["sets"]]
    training = read_json(run.adapter_folder(axis).parent / "training.json")
    n_long, n_cut = training["dropped"]["overlong"], training["without_end_token"]
    return [
        *lines,
        f"{axis}: trained on {training['examples']} examples; left out {n_long} that are too long; {n_cut} lack their "
        "end token",
    ]
