"""One figure of a judge: a mean in per cent with its interval, n and unscored; and the words figures are known by."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from alignx.evaluate.statistics.intervals import bootstrap_interval

WIN_RATE, WIN_RATE_LC, FLIP_RATE = "win_rate", "win_rate_lc", "flip_rate"
SAFETY_SCORE, REFUSAL_RATE, TRUTH_RATE, INFO_RATE, TI = "safety_score", "refusal_rate", "truth", "info", "ti"
GPT_JUDGE, TRAINED_TI = "gpt-judge", "trained-ti"

# Prompt -> value in [0, 1]; none where the judge gave no verdict.
Scores = dict[str, float | None]
# Measure -> method -> group -> scores.
Measured = dict[str, dict[str, dict[str, Scores]]]


@dataclass(frozen=True)
class Certainty:
    """How figures are made: share of answers that must be scored, and the bootstrap's draws and seed."""

    coverage_floor: float
    n_draws: int
    seed: int


def figure(scores: Scores, certainty: Certainty) -> dict[str, Any]:
    """Mean in per cent with its interval, n and unscored; no value below the coverage floor."""
    present = {prompt: value for prompt, value in scores.items() if value is not None}
    n, unscored = len(present), len(scores) - len(present)
    coverage = n / len(scores) if scores else 0.0
    document: dict[str, Any] = {"value": None, "interval": None, "n": n, "unscored": unscored, "coverage": coverage}
    if n and coverage >= certainty.coverage_floor:
        values = [100 * value for value in present.values()]
        document["value"] = float(np.mean(values))
        document["interval"] = list(
            bootstrap_interval(values, clusters=list(present), n_draws=certainty.n_draws, seed=certainty.seed)
        )
    return document


def paired_difference(ours: Scores, theirs: Scores, certainty: Certainty) -> dict[str, Any]:
    """Ours minus theirs in percentage points, over prompts that both have a value on; as `figure`."""
    differences: Scores = {}
    for prompt, their_value in theirs.items():
        our_value = ours.get(prompt)
        differences[prompt] = None if our_value is None or their_value is None else our_value - their_value
    return figure(differences, certainty)
