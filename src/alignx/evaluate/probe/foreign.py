"""Foreign prompts: whether the detector knows them at any length, and leaves the axes' own prompts alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignx.evaluate.probe.routed import RoutedPrompts
from alignx.evaluate.probe.separation import Sides, auroc, auroc_table, within
from alignx.evaluate.probe.sets import OWN_KIND

# Scores that are compared: the detector's, the router's doubt by either read-out, and length alone.
DETECTOR, AXIS_DOUBT, BEST_DOUBT, LENGTH = "detector", "axis-doubt", "best-doubt", "length"
SCORES = (DETECTOR, AXIS_DOUBT, BEST_DOUBT, LENGTH)


def foreign_figures(
    foreign: RoutedPrompts,
    kinds: Sequence[str],
    test: RoutedPrompts,
    test_axes: Sequence[str],
    *,
    n_draws: int,
    seed: int,
) -> dict[str, Any]:
    """Figures of the detector on foreign prompts against the axes' test prompts.

    AUROC is taken over prompts of both sides whose token length lies within the 5th to 95th percentile of the test
    prompts', so that length alone explains little; `length` shows what it still explains, in whichever direction
    serves it best for the kind.

    Args:
        foreign: routing of the foreign prompts.
        kinds: theirs.
        test: routing of the axes' test prompts.
        test_axes: theirs.
        n_draws: bootstrap draws.
        seed: of the draws.
    """
    low, high = (float(end) for end in np.quantile(test.tokens, [0.05, 0.95]))
    ours, theirs = within(foreign.tokens, low, high), within(test.tokens, low, high)
    of = np.asarray(kinds)
    every = list(dict.fromkeys(kinds))
    matched = [kind for kind in every if (ours & (of == kind)).any()]
    averaged = [kind for kind in matched if kind != OWN_KIND]
    chosen = {kind: ours & (of == kind) for kind in matched}

    def sides(name: str) -> dict[str, Sides]:
        of_foreign, of_test = _scores(foreign, name), _scores(test, name)[theirs]
        if name != LENGTH:
            return {kind: (of_foreign[rows], of_test) for kind, rows in chosen.items()}
        return {kind: _best_direction(of_foreign[rows], of_test) for kind, rows in chosen.items()}

    by_axis = np.asarray(test_axes)
    return {
        "length_range": [low, high],
        "n": {kind: {"all": int((of == kind).sum()), "matched": int((ours & (of == kind)).sum())} for kind in every},
        "n_test": {"all": len(by_axis), "matched": int(theirs.sum())},
        "averaged": averaged,
        **auroc_table({name: sides(name) for name in SCORES}, averaged, against=DETECTOR, n_draws=n_draws, seed=seed),
        "flagged": {kind: float(foreign.flagged[of == kind].mean()) for kind in every},
        "false_alarms": {
            **{axis: float(test.flagged[by_axis == axis].mean()) for axis in dict.fromkeys(test_axes)},
            "all": float(test.flagged.mean()),
        },
    }


def _scores(routed: RoutedPrompts, name: str) -> NDArray[np.float64]:
    if name == DETECTOR:
        return routed.foreign_scores
    if name == LENGTH:
        return routed.tokens
    probs = routed.axis_probs if name == AXIS_DOUBT else routed.best_probs
    doubt: NDArray[np.float64] = 1 - probs.max(axis=1)
    return doubt


def _best_direction(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> Sides:
    """Both sides negated where the positives are mostly the smaller ones."""
    return (positives, negatives) if auroc(positives, negatives) >= 0.5 else (-positives, -negatives)
