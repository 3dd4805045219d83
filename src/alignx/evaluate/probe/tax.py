"""The alignment tax: what alignment costs on text that no axis is about."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alignx.evaluate.statistics.intervals import bootstrap_ratio


def tax_table(
    losses: Mapping[str, NDArray[np.float64]],
    kinds: Sequence[str],
    averaged: Sequence[str],
    *,
    base: str,
    n_draws: int,
    seed: int,
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean loss of every method, and its change relative to the base, paired by prompt.

    Args:
        losses: method -> mean nats a target token of each prompt; shape (n,).
        kinds: of each prompt.
        averaged: kinds that `average` is over, each weighing the same.
        base: the method that others are relative to.
        n_draws: bootstrap draws.
        seed: of the draws.

    Returns:
        `loss`: method -> kind (or `average`) -> `value`; `relative`: method -> the same -> `value`, `low`, `high`, the
        change as a share of the base's loss (0.01: one per cent worse).

    Raises:
        ValueError: the base's loss is 0.
    """
    of = np.asarray(kinds)
    groups = {kind: of == kind for kind in dict.fromkeys(kinds)}
    present = np.isin(of, list(averaged))
    if present.any():
        groups["average"] = present
    loss: dict[str, dict[str, dict[str, float]]] = {}
    relative: dict[str, dict[str, dict[str, float]]] = {}
    for method, values in losses.items():
        loss[method], relative[method] = {}, {}
        for group, rows in groups.items():
            strata = of[rows]
            by_kind = [float(values[rows][strata == kind].mean()) for kind in dict.fromkeys(strata.tolist())]
            loss[method][group] = {"value": float(np.mean(by_kind))}
            if method != base:
                value, low, high = bootstrap_ratio(
                    values[rows] - losses[base][rows], losses[base][rows], strata, n_draws=n_draws, seed=seed
                )
                relative[method][group] = {"value": value, "low": low, "high": high}
    relative.pop(base)
    return {"loss": loss, "relative": relative}
