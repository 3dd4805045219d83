"""Several seeds of one config, pooled: every figure over all their test prompts, and each seed's own beside it.

A prompt may be a test prompt of several seeds; its rows are one cluster, drawn together or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignx.errors import ArtifactError, ConfigError
from alignx.evaluate.figures import FigureSettings, scored_figures
from alignx.evaluate.likelihood.judge import Judgement
from alignx.evaluate.measures import AVERAGE, ScoredPrompts, loss_table, mean_over_repeats, relative_difference
from alignx.evaluate.methods import ALIGNX, EXPERT_PREFIX
from alignx.evaluate.pipeline import READ_OUT_PREFIXES, TEST, read_metrics
from alignx.evaluate.scored import kept_judgements
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_jsonl


@dataclass(frozen=True)
class SeedResults:
    """One seed's evaluation on its test split.

    Attributes:
        metrics: its `metrics.json`.
        rows: its `prompts.jsonl`.
        judgements: method -> its judgements, in the order of the rows.
    """

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    judgements: Mapping[str, Sequence[Judgement]]

    @property
    def methods(self) -> list[str]:
        return list(self.rows[0]["loss"])


def read_seeds(runs: Sequence[RunDirectory]) -> list[SeedResults]:
    """The evaluations of runs that differ in nothing but their seed, by seed.

    Raises:
        ArtifactError: a run is not evaluated, damaged, or was evaluated by an earlier version.
        ConfigError: two runs have one seed, or other settings than the first.
    """
    found: dict[int, SeedResults] = {}
    first = _settings(runs[0])
    for run in runs:
        results = _read(run)
        seed = results.metrics["seed"]
        if seed in found:
            raise ConfigError(f"{run.root}: seed {seed} is given twice; give one run for each seed")
        others = _settings(run)
        differs = [name for name in first if others.get(name) != first[name]]
        if differs:
            raise ConfigError(f"{run.root}: `{differs[0]}` is not as in {runs[0].root}; pool runs of one config only")
        found[seed] = results
    return [found[seed] for seed in sorted(found)]


def pool(seeds: Sequence[SeedResults]) -> dict[str, Any]:
    """One document in the shape of `metrics.json` over all rows, with every seed's own under `by_seed`.

    A method that only some seeds have is left out of the pooled figures; `partial` has it over the seeds that do.
    """
    first = seeds[0].metrics
    rows = [row for seed in seeds for row in seed.rows]
    common = [name for name in seeds[0].methods if all(name in seed.methods for seed in seeds)]
    settings = FigureSettings(
        axes=[axis for axis in first["n"] if axis != AVERAGE],
        metric=first["metric"],
        tie_tolerance=first["tie_tolerance"],
        n_bins=first["calibration_bins"],
        n_draws=first["bootstrap_draws"],
        seed=0,
    )
    judgements = {
        name: [row for seed in seeds for row in seed.judgements[name]] for name in common if name in seeds[0].judgements
    }
    prompts = ScoredPrompts(*_hashes_and_axes(rows), _losses(rows, common), judgements)
    read_outs = {
        predictor: (_probs(rows, f"{prefix}axis_probs", settings), _probs(rows, f"{prefix}best_probs", settings))
        for predictor, prefix in READ_OUT_PREFIXES.items()
    }
    shared = ("judge", "prompt_style", "precision", "model")
    return {
        **{name: first[name] for name in shared},
        "split": TEST,
        "seeds": [seed.metrics["seed"] for seed in seeds],
        "commits": list(dict.fromkeys(seed.metrics["environment"]["commit"] or "unknown" for seed in seeds)),
        "environment": first["environment"],
        **scored_figures(prompts, read_outs, settings),
        "distinct_prompts": {
            axis: len({row["prompt_hash"] for row in rows if row["axis"] == axis}) for axis in settings.axes
        },
        "repeats": _pooled_repeats(seeds, common),
        "partial": _partial(seeds, common, settings),
        "by_seed": {str(seed.metrics["seed"]): seed.metrics for seed in seeds},
    }


def _read(run: RunDirectory) -> SeedResults:
    metrics = read_metrics(run, TEST)
    folder = run.evaluation_folder(TEST)
    rows = read_jsonl(folder / "prompts.jsonl")
    needed = {"loss", "axis", "prompt_hash", *(f"{prefix}best_probs" for prefix in READ_OUT_PREFIXES.values())}
    if not rows or not needed <= rows[0].keys() or "calibration_versus" not in metrics:
        raise ArtifactError(f"{folder}: made by an earlier version; run `alignx evaluate {run.root}` again")
    by_label = {str(number): rows for number, rows in enumerate(kept_judgements(folder / "judgments.jsonl").values())}
    judgements = mean_over_repeats(by_label)
    hashes = [row["prompt_hash"] for row in rows]
    for method in rows[0]["loss"]:
        judged = judgements.get(method)
        if judged is None or [row.prompt_hash for row in judged] != hashes:
            raise ArtifactError(f"{folder}: its rows do not fit its judgements; run `alignx evaluate {run.root}` again")
    return SeedResults(metrics, rows, judgements)


def _settings(run: RunDirectory) -> dict[str, Any]:
    """The config without what seeds differ in, and what no figure depends on."""
    return run.read_config().model_dump(mode="json", exclude={"seed", "salt", "showcase"})


def _hashes_and_axes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    return [row["prompt_hash"] for row in rows], [row["axis"] for row in rows]


def _losses(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> dict[str, Any]:
    return {method: np.array([row["loss"][method] for row in rows]) for method in methods}


def _probs(rows: Sequence[Mapping[str, Any]], read_out: str, settings: FigureSettings) -> Any:
    return np.array([[row[read_out][axis] for axis in settings.axes] for row in rows])


def _pooled_repeats(seeds: Sequence[SeedResults], common: Sequence[str]) -> dict[str, list[float]]:
    """Mean over the seeds of each repeat's average loss."""
    found = [seed.metrics.get("repeats", {}) for seed in seeds]
    return {
        name: np.mean([repeats[name] for repeats in found], axis=0).tolist()
        for name in common
        if all(name in repeats for repeats in found)
    }


def _partial(seeds: Sequence[SeedResults], common: Sequence[str], settings: FigureSettings) -> dict[str, Any]:
    """Method -> its figures over the seeds that have it, with AlignX's and the joint LoRA's loss on the same rows."""
    draws = {"n_draws": settings.n_draws, "seed": settings.seed}
    found: dict[str, Any] = {}
    for method in dict.fromkeys(name for seed in seeds for name in seed.methods if name not in common):
        having = [seed for seed in seeds if method in seed.methods]
        rows = [row for seed in having for row in seed.rows]
        beside = [name for name in common if not name.startswith((EXPERT_PREFIX, "ablation-"))]
        prompts = ScoredPrompts(*_hashes_and_axes(rows), _losses(rows, [method, *beside]), {})
        loss, interval = loss_table(prompts, **draws)
        found[method] = {
            "seeds": [seed.metrics["seed"] for seed in having],
            "n": {axis: prompts.axes.count(axis) for axis in settings.axes} | {AVERAGE: len(rows)},
            "loss": loss,
            "loss_interval": interval,
            "alignx_versus": relative_difference(prompts, prompts.losses[ALIGNX], prompts.losses[method], **draws),
        }
    return found
