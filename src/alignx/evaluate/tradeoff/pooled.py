"""Sweeps of several runs that differ in seed: the same figures over all their prompts."""

from collections.abc import Sequence
from dataclasses import fields
from statistics import geometric_mean
from typing import Any

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.tradeoff.figures import Shares, tradeoff_figures
from alignx.evaluate.tradeoff.pipeline import pooled_path, read_tradeoff, score_rows_path
from alignx.evaluate.tradeoff.scoring import PromptScore
from alignx.evaluate.tradeoff.settings import DIAL_SHARES, REST, dial_name, swept_settings
from alignx.progress import notice
from alignx.runs.directory import RunDirectory
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_jsonl, write_json


def pool_tradeoffs(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """The figures of all runs' prompts, kept beside the first one's as `pooled.json`.

    A prompt that several seeds test on is one cluster of the bootstrap; methods that not all runs have are left out.

    Returns:
        What `run_tradeoff` does, with `seeds`, and every seed's own `spearman` of a dial as `spearman_by_seed`.

    Raises:
        ArtifactError: a run was not swept, or not as the first one was.
    """
    swept = [_read(run) for run in runs]
    first = swept[0]
    for run, metrics in zip(runs, swept, strict=True):
        for name in ("limit", "resolution"):
            if metrics[name] != first[name]:
                raise ArtifactError(
                    f"{run.root}: was swept with {name} {metrics[name]}, {runs[0].root} with {first[name]}; name both "
                    "in one `alignx tradeoff`"
                )
    shared = [name for name in first["settings"] if all(name in one["settings"] for one in swept)]
    for run, metrics in zip(runs, swept, strict=True):
        extra = [name for name in metrics["settings"] if name not in shared]
        if extra:
            notice(f"{run.root}: {', '.join(extra)} left out: not all the runs have it")
    config = runs[0].read_config()
    settings = swept_settings(config, _mean_weights(config, swept), first["resolution"])
    scores: dict[str, list[PromptScore]] = {name: [] for name in shared}
    axis_of, prompt_of = [], []
    for run in runs:
        for row in read_jsonl(score_rows_path(run)):
            if row["setting"] in scores:
                score = PromptScore(**{one.name: row[one.name] for one in fields(PromptScore)})
                scores[row["setting"]].append(score)
            if row["setting"] == REST:
                axis_of.append(row["axis"])
                prompt_of.append(row["prompt_hash"])
    shares: Shares = {
        setting.name: _mean_shares([one["settings"][setting.name]["mean_pi"] for one in swept]) for setting in settings
    }
    found = tradeoff_figures(config, settings, scores, shares, axis_of=axis_of, prompt_of=prompt_of)
    for axis, dial in found["dials"].items():
        dial["spearman_by_seed"] = [one["dials"][axis]["spearman"] for one in swept]
    found |= {
        "seeds": [one["seed"] for one in swept],
        "limit": first["limit"],
        "resolution": first["resolution"],
        "environment": describe_environment(),
    }
    write_json(pooled_path(runs[0]), found)
    return found


def _read(run: RunDirectory) -> dict[str, Any]:
    metrics = read_tradeoff(run)
    if metrics is None:
        raise ArtifactError(f"{run.root}: no trade-off; run `alignx tradeoff {run.root}`")
    return metrics


def _mean_weights(config: RunConfig, swept: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Axis -> the weights along its dial: those of the runs, which come to the same shares, as a geometric mean."""
    names = {axis: [dial_name(axis, share) for share in DIAL_SHARES] for axis in config.axes}
    return {
        axis: [geometric_mean([one["settings"][name]["weights"][axis] for one in swept]) for name in of_axis]
        for axis, of_axis in names.items()
    }


def _mean_shares(of_runs: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        own: {to: sum(one[own][to] for one in of_runs) / len(of_runs) for to in shares}
        for own, shares in of_runs[0].items()
    }
