"""A sweep made by hand: scores that follow the mixture by a formula, and the figures of them; no model is needed."""

from typing import Any

import numpy as np

from alignx.evaluate.tradeoff.scoring import PromptScore
from alignx.evaluate.tradeoff.settings import (
    DIAL_SHARES,
    REST,
    Setting,
    dial_settings,
    dial_weights,
    grid_settings,
    preset_settings,
    static_settings,
)
from alignx.evaluate.tradeoff.surface import Roles, Sweep, surface
from alignx.stage2.dial import Dial

METRICS = ("win_rate", "safe_preferred", "mc2")
ROUTED = 0.8  # share a prompt's own expert gets with the dial at rest


def make_sweep(
    axes: list[str], *, n: int = 6, resolution: int = 3, merges: tuple[str, ...] = ("ties",)
) -> dict[str, Any]:
    """What `eval/tradeoff/metrics.json` holds when an expert is good at its axis and bad at the others."""
    metric = {axis: METRICS[at % len(METRICS)] for at, axis in enumerate(axes)}
    axis_of = [axis for axis in axes for _ in range(n)]
    noise = np.random.default_rng(0).normal(0, 0.3, size=len(axis_of))
    fixed = {one.name: one for one in static_settings(axes, resolution)}

    def routed(weights: dict[str, float], own: str) -> dict[str, float]:
        odds = {to: (ROUTED if to == own else (1 - ROUTED) / len(axes)) * weights.get(to, 1.0) for to in axes}
        return {to: value / sum(odds.values()) for to, value in odds.items()}

    dials = dial_settings(
        {axis: dial_weights(lambda weight, axis=axis: routed({axis: weight}, axis)[axis]) for axis in axes}
    )
    swept = {
        one.name: one for one in [Setting(REST, "dial", Dial()), *(one for along in dials.values() for one in along)]
    }
    swept |= {one.name: one for one in [*grid_settings(axes, resolution), *preset_settings(axes, {})]}
    pi = {name: {own: routed(dict(one.dial.weights), own) for own in axes} for name, one in swept.items()}
    pi |= {name: {own: dict(one.dial.weights) for own in axes} for name, one in fixed.items()}
    pi |= {f"expert-{axis}": {own: {to: float(to == axis) for to in axes} for own in axes} for axis in axes}
    even = dict.fromkeys(axes, 1 / len(axes))
    methods = ["base", *(f"expert-{axis}" for axis in axes), "joint", "uniform", *merges]

    def score(name: str, row: int) -> PromptScore:
        own = axis_of[row]
        share = {"base": -1.0, "joint": ROUTED}.get(name, pi.get(name, {own: even})[own].get(own, 0.0))
        loss = float(3 - share + noise[row])
        return PromptScore(loss, float(share > 0.5), share + float(noise[row]), float(share > 0.4), 0.4 + share / 3)

    scores = {name: [score(name, row) for row in range(len(axis_of))] for name in [*methods, *swept, *fixed]}
    roles = Roles(
        dials={axis: [one.name for one in along] for axis, along in dials.items()},
        shares={axis: [pi[one.name][axis][axis] for one in along] for axis, along in dials.items()},
        rest=REST,
        swept=[name for name, one in swept.items() if one.kind != "preset"],
        fixed=list(fixed),
        rivals=[*methods, *fixed],
    )
    found = surface(Sweep(axes, axis_of, scores, metric), roles, n_draws=100, seed=0)
    for name, one in (swept | fixed).items():
        found["settings"][name] |= {"kind": one.kind, "axis": one.axis, "weights": dict(one.dial.weights)}
        found["settings"][name] |= {"floors": dict(one.dial.floors), "strength": 1.0, "mean_pi": pi[name]}
    for name in methods:
        found["settings"][name] |= {"kind": "method"}
    assert REST in found["settings"]
    return {"axes": axes, "seed": 0, "metric": metric, "made_from": {}, "dial_shares": list(DIAL_SHARES), **found}
