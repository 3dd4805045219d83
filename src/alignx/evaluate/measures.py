"""Judgements and routing -> figures, each with n and a 95% bootstrap interval; no model is needed from here on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignx.evaluate.likelihood.judge import Judgement
from alignx.evaluate.statistics.calibration import (
    best_expert_labels,
    brier_score,
    brier_terms,
    ece_with_reference,
    log_loss,
    log_loss_terms,
    reliability_bins,
)
from alignx.evaluate.statistics.intervals import (
    bootstrap_interval,
    bootstrap_ratio,
    bootstrap_stratified_mean,
    stratified_mean,
)
from alignx.evaluate.statistics.win_rate import win_rate

AVERAGE = "average"
Column = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredPrompts:
    """Test prompts in one order, with every method's loss.

    Attributes:
        hashes: prompt hashes, the bootstrap's clusters; (n,).
        axes: axis of each prompt; (n,).
        losses: method -> (n,) nats a target token.
        judgements: method -> its judgements, in the same order.
    """

    hashes: list[str]
    axes: list[str]
    losses: dict[str, Column]
    judgements: dict[str, list[Judgement]]


def collect(judgements: Mapping[str, Sequence[Judgement]]) -> ScoredPrompts:
    """Line methods up; all must have judged the same prompts in the same order."""
    first = next(iter(judgements.values()))
    hashes = [judgement.prompt_hash for judgement in first]
    for method, rows in judgements.items():
        if [row.prompt_hash for row in rows] != hashes:
            raise ValueError(f"method {method} judged other prompts than the first one")
    losses = {method: np.array([row.loss for row in rows]) for method, rows in judgements.items()}
    return ScoredPrompts(
        hashes, [row.axis for row in first], losses, {name: list(rows) for name, rows in judgements.items()}
    )


def repeats_of(judgements: Mapping[str, Sequence[Judgement]]) -> dict[str, list[Sequence[Judgement]]]:
    """Method -> its judgements with each seed, for methods that were scored with several; the given keys are labels."""
    by_method: dict[str, list[Sequence[Judgement]]] = {}
    for rows in judgements.values():
        by_method.setdefault(rows[0].method, []).append(rows)
    return {method: repeats for method, repeats in by_method.items() if len(repeats) > 1}


def mean_over_repeats(judgements: Mapping[str, Sequence[Judgement]]) -> dict[str, Sequence[Judgement]]:
    """Method -> its judgements, each figure the mean over the seeds that the method was scored with."""
    repeated = repeats_of(judgements)
    found: dict[str, Sequence[Judgement]] = {}
    for rows in judgements.values():
        method = rows[0].method
        if method not in found:
            found[method] = list(map(_mean_judgement, *repeated[method])) if method in repeated else rows
    return found


def repeat_losses(judgements: Mapping[str, Sequence[Judgement]]) -> dict[str, list[float]]:
    """Method -> its loss on the average of the axes with each seed that it was scored with, where they are several."""
    return {
        method: [stratified_mean([row.loss for row in rows], [row.axis for row in rows]) for rows in repeats]
        for method, repeats in repeats_of(judgements).items()
    }


def _mean_judgement(*repeats: Judgement) -> Judgement:
    def mean(name: str) -> float | None:
        values = [getattr(judgement, name) for judgement in repeats]
        return None if any(value is None for value in values) else float(np.mean(values))

    loss = float(np.mean([judgement.loss for judgement in repeats]))
    return replace(repeats[0], loss=loss, safe_preferred=mean("safe_preferred"), mc1=mean("mc1"), mc2=mean("mc2"))


def loss_table(prompts: ScoredPrompts, *, n_draws: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss by method and axis and on the average of the axes, and the intervals of the same shape."""
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    axes = np.array(prompts.axes)
    for method, losses in prompts.losses.items():
        values[method], intervals[method] = {}, {}
        for axis in dict.fromkeys(prompts.axes):
            rows = losses[axes == axis]
            values[method][axis] = float(rows.mean())
            clusters = np.array(prompts.hashes)[axes == axis]
            intervals[method][axis] = list(bootstrap_interval(rows, clusters=clusters, n_draws=n_draws, seed=seed))
        values[method][AVERAGE] = stratified_mean(losses, prompts.axes)
        intervals[method][AVERAGE] = list(
            bootstrap_stratified_mean(losses, prompts.axes, prompts.hashes, n_draws=n_draws, seed=seed)
        )
    return values, intervals


def relative_difference(
    prompts: ScoredPrompts, ours: Column, theirs: Column, *, n_draws: int, seed: int
) -> dict[str, Any]:
    """(ours - theirs) / theirs on the average of the axes and by axis, paired by prompt; negative is better.

    `nats` is the same difference before it is divided; `interval` belongs to `average`.
    """
    value, low, high = bootstrap_ratio(ours - theirs, theirs, prompts.axes, prompts.hashes, n_draws=n_draws, seed=seed)
    axes = np.array(prompts.axes)
    document: dict[str, Any] = {
        AVERAGE: value,
        "interval": [low, high],
        "nats": stratified_mean(ours - theirs, prompts.axes),
    }
    for axis in dict.fromkeys(prompts.axes):
        at = axes == axis
        ratio = bootstrap_ratio(
            (ours - theirs)[at], theirs[at], axes[at], np.array(prompts.hashes)[at], n_draws=n_draws, seed=seed
        )
        document[axis] = ratio[0]
        document[f"{axis}_interval"] = list(ratio[1:])
    return document


def own_expert_losses(prompts: ScoredPrompts) -> Column:
    """(n,) loss of each prompt's own axis's expert."""
    return np.array([prompts.losses[f"expert-{axis}"][row] for row, axis in enumerate(prompts.axes)])


def likelihood_table(prompts: ScoredPrompts, metrics: Mapping[str, str], *, n_draws: int, seed: int) -> dict[str, Any]:
    """Win rate against the base, safe preference, MC1 and MC2 by method and axis, in per cent, with n and interval.

    There is no average when an axis is judged by its loss, which is not a percentage, or lacks its figure.

    Args:
        prompts: the scored prompts; `base` among the methods.
        metrics: axis -> the figure that stands for it in `average`.
        n_draws: bootstrap draws.
        seed: of the draws.
    """
    axes = np.array(prompts.axes)
    table: dict[str, Any] = {}
    for method, rows in prompts.judgements.items():
        wins = win_rate(-prompts.losses[method], -prompts.losses["base"])
        table[method] = {}
        headlines = []
        for axis in dict.fromkeys(prompts.axes):
            at = np.flatnonzero(axes == axis)
            measured: dict[str, Sequence[float | None]] = {
                "win_rate": wins[at].tolist(),
                "safe_preferred": [rows[row].safe_preferred for row in at],
                "mc1": [rows[row].mc1 for row in at],
                "mc2": [rows[row].mc2 for row in at],
            }
            clusters = [prompts.hashes[row] for row in at]
            found = {name: _share(values, clusters, n_draws, seed) for name, values in measured.items()}
            table[method][axis] = {name: share for name, share in found.items() if share is not None}
            headlines.append(table[method][axis].get(metrics[axis]))
        if all(headline is not None for headline in headlines):
            table[method][AVERAGE] = float(np.mean([headline["value"] for headline in headlines if headline]))
    return table


def _share(values: Sequence[float | None], clusters: Sequence[str], n_draws: int, seed: int) -> dict[str, Any] | None:
    present = [100 * value for value in values if value is not None]
    if not present:
        return None
    of_present = [cluster for cluster, value in zip(clusters, values, strict=True) if value is not None]
    interval = bootstrap_interval(present, clusters=of_present, n_draws=n_draws, seed=seed)
    return {"value": float(np.mean(present)), "interval": list(interval), "n": len(present)}


def calibration_of(probs: Column, labels: NDArray[np.int64], *, n_bins: int, n_draws: int, seed: int) -> dict[str, Any]:
    """How far (n, m) probabilities can be believed about (n,) right classes, and the reliability diagram's points."""
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    ece = ece_with_reference(confidence, correct, n_bins=n_bins, n_draws=n_draws, seed=seed)
    return {
        "ece": ece.ece,
        "perfect_mean": ece.perfect_mean,
        "perfect_p95": ece.perfect_p95,
        "brier": brier_score(probs, labels),
        "log_loss": log_loss(probs, labels),
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
        "reliability": [
            [point.mean_confidence, point.accuracy, point.count]
            for point in reliability_bins(confidence, correct, n_bins)
        ],
    }


def calibration_table(
    read_outs: Mapping[str, tuple[Column, Column]],
    axis_ids: NDArray[np.int64],
    expert_losses: Column,
    *,
    tie_tolerance: float,
    n_bins: int,
    n_draws: int,
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Question (`axis`, `best_expert`) -> predictor -> its calibration.

    Args:
        read_outs: predictor -> (axis_probs, best_probs), (n, m) each; ties for the best expert count for all.
        axis_ids: (n,) axis each prompt comes from.
        expert_losses: (n, m).
        tie_tolerance: share of the lowest loss within which experts tie.
        n_bins: bins of ECE and diagram.
        n_draws: draws from a perfectly calibrated predictor.
        seed: of the draws.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {"axis": {}, "best_expert": {}}
    for predictor, (axis_probs, best_probs) in read_outs.items():
        table["axis"][predictor] = calibration_of(axis_probs, axis_ids, n_bins=n_bins, n_draws=n_draws, seed=seed)
        labels = best_expert_labels(expert_losses, best_probs, tie_tolerance)
        table["best_expert"][predictor] = calibration_of(best_probs, labels, n_bins=n_bins, n_draws=n_draws, seed=seed)
    return table


def calibration_differences(
    prompts: ScoredPrompts,
    read_outs: Mapping[str, tuple[Column, Column]],
    axis_ids: NDArray[np.int64],
    expert_losses: Column,
    *,
    tie_tolerance: float,
    n_draws: int,
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """AlignX's Brier score and log loss minus another predictor's, paired by prompt; negative is better for AlignX.

    Args:
        prompts: whose hashes are the clusters and whose axes the strata.
        read_outs: as `calibration_table`; `alignx` is compared with each of the others.
        axis_ids: (n,) axis each prompt comes from.
        expert_losses: (n, m).
        tie_tolerance: as `calibration_table`; each predictor has its own labels where experts tie.
        n_draws: bootstrap draws.
        seed: of the draws.

    Returns:
        Question -> other predictor -> measure (`brier`, `log_loss`) -> value and 95% interval.
    """

    def terms(predictor: str, question: str) -> dict[str, Column]:
        probs = read_outs[predictor][0 if question == "axis" else 1]
        labels = axis_ids if question == "axis" else best_expert_labels(expert_losses, probs, tie_tolerance)
        return {"brier": brier_terms(probs, labels), "log_loss": log_loss_terms(probs, labels)}

    def difference(ours: Column, theirs: Column) -> dict[str, Any]:
        gap = ours - theirs
        interval = bootstrap_interval(gap, clusters=prompts.hashes, strata=prompts.axes, n_draws=n_draws, seed=seed)
        return {"value": float(gap.mean()), "interval": list(interval)}

    table: dict[str, dict[str, dict[str, Any]]] = {}
    for question in ("axis", "best_expert"):
        ours = terms("alignx", question)
        table[question] = {
            other: {measure: difference(ours[measure], column) for measure, column in terms(other, question).items()}
            for other in read_outs
            if other != "alignx"
        }
    return table
