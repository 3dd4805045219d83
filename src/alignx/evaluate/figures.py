"""What is said of scored prompts, of one run or of several seeds pooled: the figures of `metrics.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignx.evaluate.measures import (
    Column,
    ScoredPrompts,
    calibration_differences,
    calibration_table,
    likelihood_table,
    loss_table,
    own_expert_losses,
    relative_difference,
)
from alignx.evaluate.methods import ALIGNX, PLAIN_ROUTER, expert_method

ORACLE = "oracle-best-expert"


@dataclass(frozen=True)
class FigureSettings:
    """How figures are made.

    Attributes:
        axes: in the config's order.
        metric: axis -> the figure that stands for it.
        tie_tolerance: share of the lowest loss within which experts tie.
        n_bins: of the calibration error.
        n_draws: bootstrap draws.
        seed: of the draws.
    """

    axes: Sequence[str]
    metric: Mapping[str, str]
    tie_tolerance: float
    n_bins: int
    n_draws: int
    seed: int


def scored_figures(
    prompts: ScoredPrompts, read_outs: Mapping[str, tuple[Column, Column]], settings: FigureSettings
) -> dict[str, Any]:
    """Losses, differences, rates and calibration, each with its interval, clustered by prompt.

    Args:
        prompts: every method's losses and judgements; a prompt that is there several times is one cluster.
        read_outs: predictor (`alignx`, `plain`, `plain_with_temperature`) -> its (n, m) probabilities of the axis and
            of the best expert.
        settings: how.
    """
    draws = {"n_draws": settings.n_draws, "seed": settings.seed}
    axes = list(settings.axes)
    expert_losses = np.stack([prompts.losses[expert_method(axis)] for axis in axes], axis=1)
    loss, loss_interval = loss_table(with_oracle(prompts, expert_losses), **draws)
    own, ours = own_expert_losses(prompts), prompts.losses[ALIGNX]
    axis_ids = np.array([axes.index(axis) for axis in prompts.axes])
    calibration = calibration_table(
        read_outs, axis_ids, expert_losses, tie_tolerance=settings.tie_tolerance, n_bins=settings.n_bins, **draws
    )
    return {
        "n": {axis: prompts.axes.count(axis) for axis in axes} | {"average": len(prompts.axes)},
        "loss": loss,
        "loss_interval": loss_interval,
        "regret": relative_difference(prompts, ours, own, **draws),
        "regret_of": {
            method: relative_difference(prompts, prompts.losses[method], own, **draws)
            for method in (ALIGNX, PLAIN_ROUTER)
            if method in prompts.losses
        },
        "alignx_versus": {
            method: relative_difference(prompts, ours, losses, **draws)
            for method, losses in prompts.losses.items()
            if method != ALIGNX
        },
        "metric": dict(settings.metric),
        "likelihood": likelihood_table(prompts, settings.metric, **draws),
        **{
            measure: {
                question: {predictor: figures[measure] for predictor, figures in by_predictor.items()}
                for question, by_predictor in calibration.items()
            }
            for measure in ("ece", "brier", "log_loss", "accuracy")
        },
        "calibration": calibration,
        "calibration_versus": calibration_differences(
            prompts, read_outs, axis_ids, expert_losses, tie_tolerance=settings.tie_tolerance, **draws
        ),
        "tie_tolerance": settings.tie_tolerance,
        "calibration_bins": settings.n_bins,
        "bootstrap_draws": settings.n_draws,
    }


def with_oracle(prompts: ScoredPrompts, expert_losses: Column) -> ScoredPrompts:
    """Adds the expert that is best on each prompt's own target: a bound that no router can know."""
    losses = {**prompts.losses, ORACLE: expert_losses.min(axis=1)}
    return ScoredPrompts(prompts.hashes, prompts.axes, losses, prompts.judgements)
