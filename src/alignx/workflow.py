"""The stages as whole jobs on a run directory: what the commands call, and a notebook can.

Every job does only what is missing or stale.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignx.config import AxisConfig, RunConfig, SplitSizes
from alignx.config.files import parse_config
from alignx.config.presets import AXIS_INSTRUCTIONS
from alignx.errors import ConfigError
from alignx.evaluate.judging import JudgingOptions, Plan, plan_judging, run_judging
from alignx.evaluate.pipeline import run_evaluate
from alignx.mixture.showcase import run_showcase
from alignx.models.lazy import LazyBase
from alignx.report.page import write_report
from alignx.runs.directory import RunDirectory
from alignx.stage1.pipeline import finish_stage1, run_stage1
from alignx.stage2.dial import Dial
from alignx.stage2.pipeline import make_merge, run_stage2

# The axis that each data set stands for in the paper.
AXIS_OF_DATASET = {"alpaca": "helpful", "beavertails": "harmless", "truthfulqa": "honest"}


def run_all(config: RunConfig, out: Path, *, data_dir: Path | None = None) -> dict[str, Any]:
    """Stage 1, Stage 2, evaluation, showcase and report.

    Args:
        config: the run's config.
        out: run directory.
        data_dir: folder of relative data sources.

    Returns:
        What `eval/test/metrics.json` holds.

    Raises:
        AlignXError: of the step that could not be done; a rerun goes on from there.
    """
    run = RunDirectory(out)
    lazy = LazyBase(config, run)
    run_stage1(config, run, data_dir=data_dir, lazy=lazy)
    run_stage2(config, run, lazy=lazy)
    metrics = run_evaluate(config, run, lazy=lazy)
    run_showcase(config, run, lazy)
    write_report(run)
    return metrics


def add_axis(
    out: Path,
    *,
    model: str,
    axis: str,
    data: AxisConfig,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
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
        settings: fields of `Stage1Config` for a new run; a run that exists keeps its own.
        finish: also extract what all axes take part in; else Stage 2 does it when it starts.

    Raises:
        ConfigError: another model or other settings than the run's.
        AlignXError: of the step that could not be done.
    """
    run = RunDirectory(out)
    if run.config_path.is_file():
        config = run.read_config()
        if config.model != model:
            raise ConfigError(f"--model {model}: {out} was made with `{config.model}`; use that model or another --out")
        asked = {name: value for name, value in (settings or {}).items() if getattr(config.stage1, name) != value}
        if asked:
            name = next(iter(asked))
            raise ConfigError(
                f"{name} {asked[name]}: {out} was made with {getattr(config.stage1, name)}; its experts must agree, so "
                "use that value or another --out"
            )
        document = config.model_dump(mode="json")
    else:
        stage1 = {"shared_expert": False, **(settings or {})}
        document = {"model": model, "seed": seed, "axes": {}, "stage1": stage1}
    document["axes"][axis] = data.model_dump(mode="json")
    config = parse_config(document, source=f"axis `{axis}`")
    lazy = LazyBase(config, run)
    run_stage1(config, run, lazy=lazy, only=axis)
    if finish:
        finish_stage1(config, run, lazy)


def parse_dataset(text: str, *, axis: str | None, instruction: str, splits: SplitSizes) -> tuple[str, AxisConfig]:
    """Read `alpaca`, `beavertails=PATH` or `truthfulqa=sample` as an axis's name and data.

    Raises:
        ConfigError: unknown data set, or an axis without an instruction.
    """
    dataset, _, source = text.partition("=")
    if dataset not in AXIS_OF_DATASET:
        raise ConfigError(f"--dataset {text}: unknown data set; give {', '.join(AXIS_OF_DATASET)}, or NAME=PATH")
    name = axis or AXIS_OF_DATASET[dataset]
    if not instruction and name not in AXIS_INSTRUCTIONS:
        raise ConfigError(f'--axis {name}: no built-in instruction; add --instruction "Be ..."')
    data = AxisConfig.model_validate(
        {"dataset": dataset, "source": source, "instruction": instruction, "splits": splits.model_dump()}
    )
    return name, data


def fit_mixture(out: Path, *, method: str = "mocae") -> None:
    """Stage 2 of a run: the mixture, or one static merge.

    Raises:
        AlignXError: no such run, unknown method, or a step that could not be done.
    """
    run = RunDirectory(out)
    config = run.read_config()
    if method == "mocae":
        run_stage2(config, run)
    else:
        make_merge(config, run, method)


def evaluate(out: Path, *, test_data: Path | None = None) -> dict[str, Any]:
    """Score a run on its test split, or on a folder's rows; see `run_evaluate`."""
    run = RunDirectory(out)
    return run_evaluate(run.read_config(), run, test_data=test_data)


def judge(out: Path, options: JudgingOptions, *, test_data: Path | None = None) -> dict[str, Any]:
    """Have a run's methods answer and its judges judge the answers; see `run_judging`."""
    run = RunDirectory(out)
    return run_judging(run.read_config(), run, options, test_data=test_data)


def plan_judges(out: Path, options: JudgingOptions, *, test_data: Path | None = None) -> Plan:
    """What `judge` would ask and cost; see `plan_judging`."""
    run = RunDirectory(out)
    return plan_judging(run.read_config(), run, options, test_data=test_data)


def report(out: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` from what a run has kept.

    Raises:
        ArtifactError: not a run directory, or not evaluated yet.
    """
    run = RunDirectory(out)
    run.read_config()
    return write_report(run)


def check_dial(out: Path, dial: Dial) -> None:
    """Check a dial against a run's axes before its model is loaded.

    Raises:
        ArtifactError: not a run directory.
        DialError: see `Dial`.
    """
    axes = list(RunDirectory(out).read_config().axes)
    dial.weight_vector(axes)
    dial.floor_vector(axes)
    dial.checked_strength()
