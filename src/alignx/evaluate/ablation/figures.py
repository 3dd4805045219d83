"""Rows of prompts -> the ablation table's figures, of one seed or of several; no model is needed from here on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignx.errors import ArtifactError
from alignx.evaluate.ablation.variants import ALIGNX
from alignx.evaluate.measures import AVERAGE, ScoredPrompts, calibration_of, relative_difference
from alignx.evaluate.statistics.calibration import best_expert_labels
from alignx.evaluate.statistics.intervals import bootstrap_stratified_mean, stratified_mean

Column = NDArray[np.float64]
_SHOWN = ("ece", "perfect_p95", "brier", "log_loss", "accuracy")


@dataclass(frozen=True)
class RowPrompt:
    """One row of the table on one prompt.

    Attributes:
        variant: the row's name.
        seed: the run's.
        prompt_hash: the prompt.
        axis: where it comes from.
        loss: nats a target token; none where only calibration was measured.
        pi: mixture weights in the axes' order.
        axis_probs: read-out; none where the row has none of its own.
        best_probs: likewise.
        expert_losses: nats under every expert, in the axes' order; what best_probs is judged against.
    """

    variant: str
    seed: int
    prompt_hash: str
    axis: str
    loss: float | None
    pi: list[float]
    axis_probs: list[float] | None
    best_probs: list[float] | None
    expert_losses: list[float]


def row_figures(
    rows: Sequence[RowPrompt],
    aligned: Mapping[tuple[int, str, str], float],
    axes: Sequence[str],
    *,
    tie_tolerance: float,
    n_bins: int,
    n_draws: int,
    seed: int,
) -> dict[str, Any]:
    """Figures of one row of the table, every axis weighing the same; intervals are clustered by prompt across seeds.

    Args:
        rows: the row's prompts, of all seeds.
        aligned: (seed, axis, prompt hash) -> AlignX's loss.
        axes: the axes, in the order of every vector.
        tie_tolerance: share of the lowest loss within which experts tie.
        n_bins: bins of ECE.
        n_draws: bootstrap draws, and draws from a perfectly calibrated predictor.
        seed: of the draws.
    """
    draws = {"n_draws": n_draws, "seed": seed}
    scored = [row for row in rows if row.loss is not None]
    prompts = ScoredPrompts([row.prompt_hash for row in scored], [row.axis for row in scored], {}, {})
    document: dict[str, Any] = {"n": {axis: prompts.axes.count(axis) for axis in axes} | {AVERAGE: len(scored)}}
    losses = np.array([row.loss for row in scored])
    document["loss"] = {axis: float(losses[np.array(prompts.axes) == axis].mean()) for axis in axes}
    document["loss"][AVERAGE] = stratified_mean(losses, prompts.axes)
    document["loss_interval"] = list(bootstrap_stratified_mean(losses, prompts.axes, prompts.hashes, **draws))
    own = np.array([row.expert_losses[axes.index(row.axis)] for row in scored])
    document["regret"] = relative_difference(prompts, losses, own, **draws)
    ours = np.array([aligned[row.seed, row.axis, row.prompt_hash] for row in scored])
    document["versus_alignx"] = relative_difference(prompts, losses, ours, **draws)
    document["calibration"] = _calibration(rows, axes, tie_tolerance=tie_tolerance, n_bins=n_bins, **draws)
    pi = np.array([row.pi for row in rows])
    of = np.array([row.axis for row in rows])
    document["mean_pi"] = {axis: dict(zip(axes, pi[of == axis].mean(axis=0).tolist(), strict=True)) for axis in axes}
    return document


def by_seed(rows: Sequence[RowPrompt], aligned: Mapping[tuple[int, str, str], float]) -> list[dict[str, Any]]:
    """Loss of each seed on the average of its axes, and the share by which it differs from AlignX's."""
    found = []
    for seed in sorted({row.seed for row in rows}):
        of_seed = [row for row in rows if row.seed == seed and row.loss is not None]
        axes = [row.axis for row in of_seed]
        loss = stratified_mean(np.array([row.loss for row in of_seed]), axes)
        ours = stratified_mean([aligned[row.seed, row.axis, row.prompt_hash] for row in of_seed], axes)
        found.append({"seed": seed, "loss": loss, "versus_alignx": loss / ours - 1})
    return found


def aligned_losses(rows: Sequence[RowPrompt]) -> dict[tuple[int, str, str], float]:
    """(seed, axis, prompt hash) -> AlignX's loss, from all rows of a table."""
    return {
        (row.seed, row.axis, row.prompt_hash): row.loss
        for row in rows
        if row.variant == ALIGNX and row.loss is not None
    }


def parsed_rows(rows: Sequence[Mapping[str, Any]], path: object) -> list[RowPrompt]:
    """Rows of a `prompts.jsonl`.

    Raises:
        ArtifactError: a row is not one of ours; `path` is named.
    """
    try:
        return [RowPrompt(**row) for row in rows]
    except TypeError as error:
        raise ArtifactError(f"{path}: a row is damaged ({error}); remove it and run `alignx ablate` again") from error


def _calibration(
    rows: Sequence[RowPrompt], axes: Sequence[str], *, tie_tolerance: float, n_bins: int, n_draws: int, seed: int
) -> dict[str, dict[str, float]] | None:
    """Both read-outs against their own questions; none where the row has none."""
    if any(row.axis_probs is None or row.best_probs is None for row in rows):
        return None
    axis_probs = np.array([row.axis_probs for row in rows])
    best_probs = np.array([row.best_probs for row in rows])
    labels = best_expert_labels(np.array([row.expert_losses for row in rows]), best_probs, tie_tolerance)
    of = np.array([list(axes).index(row.axis) for row in rows])
    options = {"n_bins": n_bins, "n_draws": n_draws, "seed": seed}
    found = {
        "axis": calibration_of(axis_probs, of, **options),
        "best_expert": calibration_of(best_probs, labels, **options),
    }
    return {question: {name: figures[name] for name in _SHOWN} for question, figures in found.items()}
