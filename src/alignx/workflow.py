"""The stages as whole jobs on a run directory: what the commands call, and a notebook can.

Every job does only what is missing or stale.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from alignx.config import COMPARATOR_NAMES, RunConfig
from alignx.config.files import check_settings
from alignx.errors import ConfigError
from alignx.evaluate.ablation.pipeline import ABLATE, AblationOptions, run_ablation
from alignx.evaluate.ablation.pooled import pool
from alignx.evaluate.comparison import compare_runs
from alignx.evaluate.cost import CostOptions, run_cost
from alignx.evaluate.judging.pipeline import (
    JudgingOptions,
    Plan,
    plan_judging,
    refresh_judged,
    run_judging,
    verdicts_path,
)
from alignx.evaluate.pipeline import TEST, run_evaluate
from alignx.evaluate.probe.pipeline import ProbeOptions, run_probe
from alignx.evaluate.seeds import check_poolable
from alignx.evaluate.tradeoff.pipeline import DEFAULT_LIMIT, DEFAULT_RESOLUTION, run_tradeoff
from alignx.evaluate.tradeoff.pooled import pool_tradeoffs
from alignx.evaluate.trained.check import Check, CheckOptions, check_judge
from alignx.evaluate.variability import run_variability
from alignx.mixture.showcase import run_showcase
from alignx.models.lazy import LazyBase
from alignx.report.comparison import write_comparison
from alignx.report.page import write_report
from alignx.runs.directory import RunDirectory
from alignx.runs.lock import writing
from alignx.stage1.keep import keep_artifacts
from alignx.stage1.pipeline import run_stage1
from alignx.stage2.dial import Dial
from alignx.stage2.pipeline import check_current, make_merge, read_mocae, run_stage2
from alignx.stage2.presets import overlaid, preset_dial


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
    with writing(out) as run:
        lazy = LazyBase(config, run)
        run_stage1(config, run, data_dir=data_dir, lazy=lazy)
        keep_artifacts(config, run, lazy)
        run_stage2(config, run, lazy=lazy)
        metrics = refresh_judged(config, run, run_evaluate(config, run, lazy=lazy))
        run_showcase(config, run, lazy)
        write_report(run)
        return metrics


def fit_mixture(out: Path, *, method: str = "mocae") -> None:
    """Stage 2 of a run: the mixture, or one static merge.

    Raises:
        AlignXError: no such run, unknown method, or a step that could not be done.
    """
    config = RunDirectory(out).read_config()
    with writing(out) as run:
        if method == "mocae":
            run_stage2(config, run)
        else:
            make_merge(config, run, method)


def evaluate(out: Path, *, test_data: Path | None = None, comparators: Iterable[str] = ()) -> dict[str, Any]:
    """Score a run on its test split, or on a folder's rows; see `run_evaluate`.

    Args:
        out: run directory.
        test_data: folder of other test data.
        comparators: names of `COMPARATOR_NAMES` to make and score beside those of the run's config.

    Raises:
        ConfigError: unknown comparator, or one that the run's experts do not allow.
        AlignXError: of the step that could not be done.
    """
    config = _with_comparators(RunDirectory(out).read_config(), comparators)
    with writing(out) as run:
        metrics = run_evaluate(config, run, test_data=test_data)
        return refresh_judged(config, run, metrics, test_data=test_data)


def _with_comparators(config: RunConfig, names: Iterable[str]) -> RunConfig:
    for name in (names := list(names)):
        if name not in COMPARATOR_NAMES:
            near = get_close_matches(name, COMPARATOR_NAMES, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"give {', '.join(COMPARATOR_NAMES)}"
            raise ConfigError(f"--comparators {name}: unknown comparator; {hint}")
    document = config.model_dump(mode="json")
    document["evaluate"]["comparators"] += names
    return check_settings(RunConfig, document, source="--comparators")


def judge(out: Path, options: JudgingOptions, *, test_data: Path | None = None) -> dict[str, Any]:
    """Have a run's methods answer and its judges judge the answers; see `run_judging`."""
    config = RunDirectory(out).read_config()
    with writing(out) as run:
        return run_judging(config, run, options, test_data=test_data)


def plan_judges(out: Path, options: JudgingOptions, *, test_data: Path | None = None) -> Plan:
    """What `judge` would ask and cost; see `plan_judging`."""
    run = RunDirectory(out)
    return plan_judging(run.read_config(), run, options, test_data=test_data)


def probe(out: Path, options: ProbeOptions) -> dict[str, Any]:
    """Measure a run off its own data; see `run_probe`. A run that was evaluated has its report written anew."""
    config = RunDirectory(out).read_config()
    with writing(out) as run:
        metrics = run_probe(config, run, options)
        if (run.evaluation_folder(TEST) / "metrics.json").is_file():
            write_report(run)
        return metrics


def tradeoff(
    outs: Sequence[Path], *, limit: int = DEFAULT_LIMIT, resolution: int = DEFAULT_RESOLUTION
) -> dict[str, Any] | None:
    """Sweep the dial of a run, or of several that differ in seed; see `run_tradeoff` and `pool_tradeoffs`.

    Runs that were evaluated have their reports written anew.

    Raises:
        ConfigError: the runs cannot be pooled.
        AlignXError: a run is not finished.
    """
    runs = [RunDirectory(out) for out in outs]
    configs = [run.read_config() for run in runs]
    check_poolable(configs, outs)
    for config, run in zip(configs, runs, strict=True):  # before any of them is swept for long
        if len(config.axes) > 1:
            read_mocae(run)
            check_current(config, run)
    for config, out in zip(configs, outs, strict=True):
        with writing(out) as run:
            metrics = run_tradeoff(config, run, limit=limit, resolution=resolution)
            if metrics is not None and (run.evaluation_folder(TEST) / "metrics.json").is_file():
                write_report(run)
    return metrics if len(runs) == 1 or metrics is None else pool_tradeoffs(runs)


def ablate(outs: Sequence[Path], options: AblationOptions) -> dict[str, Any]:
    """The ablation table of a finished run, or of several that differ in seed; reports of evaluated runs show it.

    Raises:
        ConfigError: the runs cannot be pooled, or an option does not fit.
        AlignXError: a run is not finished.
    """
    runs = [RunDirectory(out) for out in outs]
    configs = [run.read_config() for run in runs]
    check_poolable(configs, outs, otherwise="compare other settings with --beside")
    if options.beside and len(outs) > 1:
        raise ConfigError("--beside compares with one run; give one RUN, or leave --beside out")
    for config, run in zip(configs, runs, strict=True):
        with writing(run.root):
            metrics = run_ablation(config, run, options)
            evaluated, page = run.evaluation_folder(TEST) / "metrics.json", run.root / "report.html"
            table = run.evaluation_folder(ABLATE) / "metrics.json"
            shown = page.is_file() and page.stat().st_mtime_ns > table.stat().st_mtime_ns
            if evaluated.is_file() and not shown:
                write_report(run)
    return metrics if len(runs) == 1 else pool(runs)


def check_against_labels(
    name: str, data: Path, options: CheckOptions, *, run: Path | None = None, verdicts: Path | None = None
) -> Check:
    """Ask a judge about labelled answers; see `check_judge`.

    Args:
        name: of the judge.
        data: labelled answers.
        options: how.
        run: a run whose report shall repeat what was found.
        verdicts: cache of verdicts; none: the run's, else `judges/verdicts.sqlite`.
    """
    if run is None:
        return check_judge(name, data, options, verdicts=verdicts or Path("judges") / "verdicts.sqlite")
    RunDirectory(run).read_config()
    with writing(run) as directory:
        return check_judge(name, data, options, verdicts=verdicts or verdicts_path(directory), run=directory)


def report(out: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` from what a run has kept.

    Raises:
        ArtifactError: not a run directory, or not evaluated yet.
    """
    RunDirectory(out).read_config()
    with writing(out) as run:
        return write_report(run)


def compare(first: Path, second: Path, *, out: Path | None = None) -> tuple[dict[str, Any], list[Path]]:
    """Compare two evaluated runs; see `compare_runs`.

    Args:
        first: a run directory.
        second: another.
        out: page to write, beside it the same in markdown; none writes nothing.

    Returns:
        The figures, and the files written.

    Raises:
        ConfigError: `out` is not an .html file.
        ArtifactError: a run cannot be compared.
    """
    if out is not None and out.suffix != ".html":
        raise ConfigError(f"--out {out}: expected a file that ends in .html, e.g. --out comparison.html")
    found = compare_runs(RunDirectory(first), RunDirectory(second))
    return found, [] if out is None else write_comparison(found, out)


def measure_cost(out: Path, options: CostOptions) -> dict[str, Any]:
    """Time every method of a run; see `run_cost`."""
    config = RunDirectory(out).read_config()
    with writing(out) as run:
        return run_cost(config, run, options)


def measure_variability(out: Path, *, limit: int, beside: Path | None = None) -> dict[str, Any]:
    """Score a run's answers at several settings; see `run_variability`."""
    config = RunDirectory(out).read_config()
    with writing(out) as run:
        return run_variability(config, run, limit=limit, beside=beside)


def make_dial(
    out: Path,
    preset: str | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
    strength: float | None = None,
) -> Dial:
    """A dial for a run, checked against its axes before its model is loaded.

    Args:
        out: run directory.
        preset: name of a setting; none is the dial at rest.
        weights: replace the preset's, axis by axis.
        floors: replace the preset's, axis by axis.
        strength: replaces the preset's.

    Raises:
        ArtifactError: not a run directory.
        DialError: no such preset, or see `Dial`.
    """
    config = RunDirectory(out).read_config()
    axes = list(config.axes)
    named = Dial() if preset is None else preset_dial(preset, axes, config.presets)
    dial = overlaid(named, weights or {}, floors or {}, strength)
    dial.weight_vector(axes)
    dial.floor_vector(axes)
    dial.checked_strength()
    return dial
