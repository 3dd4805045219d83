"""Scores of a sweep -> figures: how each dial moves its axis, the front, and what fixed mixtures are left behind by.

Legend: S settings, n prompts of an axis, m axes, D draws. Measures are turned so that higher is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignx.evaluate.statistics.win_rate import win_rate
from alignx.evaluate.tradeoff.pareto import best_match, hypervolume, matched_gaps, pareto_front
from alignx.evaluate.tradeoff.rank_correlation import spearman
from alignx.evaluate.tradeoff.scoring import PromptScore

Array = NDArray[np.float64]
# An axis's figure -> the continuous measure that stands for it: a small change of the mixture moves it.
MEASURE_OF = {
    "safe_preferred": "safe_margin",
    "mc1": "mc2",
    "mc2": "mc2",
    "loss": "minus_loss",
    "win_rate": "minus_loss",
}
# An axis's own measure must be had by this share of its prompts: what a handful says is noise, and not about the rest.
MEASURED_SHARE = 0.25
# The time of an exact volume grows with the power of the axes: fewer draws do, and beyond a few axes none is taken.
_VOLUME_DRAWS = 500
_DRAWN_VOLUME_AXES = 3
_VOLUME_AXES = 4


@dataclass(frozen=True)
class Sweep:
    """All settings' scores, lined up.

    Attributes:
        axes: the axes.
        axis_of: axis of each prompt.
        scores: setting -> its scores, in the order of the prompts.
        metric: axis -> the figure it is judged by.
        prompt_of: id of each row's prompt, which several runs may share; its rows are drawn together. Empty: every row
            has its own.
    """

    axes: Sequence[str]
    axis_of: Sequence[str]
    scores: Mapping[str, Sequence[PromptScore]]
    metric: Mapping[str, str]
    prompt_of: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.prompt_of and len(self.prompt_of) != len(self.axis_of):
            raise ValueError("every row must have a prompt")
        if any(len(scores) != len(self.axis_of) for scores in self.scores.values()):
            raise ValueError("every setting must have a score for every prompt")

    @property
    def names(self) -> list[str]:
        """Settings, in the order of every array's first dimension."""
        return list(self.scores)

    def measure_names(self) -> dict[str, str]:
        """Axis -> its continuous measure; minus its loss where under a quarter of its prompts can give that."""
        given = self.measurable()
        return {
            axis: MEASURE_OF[self.metric[axis]]
            if n and n >= MEASURED_SHARE * self.axis_of.count(axis)
            else "minus_loss"
            for axis, n in given.items()
        }

    def measurable(self) -> dict[str, int]:
        """Axis -> how many of its prompts can give the measure of the figure it is judged by."""
        return {axis: self._column(axis, MEASURE_OF[self.metric[axis]]).shape[1] for axis in self.axes}

    def measures(self, axis: str) -> Array:
        """(S, n) the axis's own measure on its own prompts that can give it."""
        return self._column(axis, self.measure_names()[axis])

    def clusters(self, axis: str) -> NDArray[np.int64]:
        """(n,) number of each of those prompts, in the order of first appearance."""
        at = self._rows(axis, self.measure_names()[axis])
        numbers: dict[str | int, int] = {}
        return np.array([numbers.setdefault(self.prompt_of[n] if self.prompt_of else n, len(numbers)) for n in at])

    def losses(self, axis: str) -> Array:
        """(S, n) nats a target token."""
        return -self._column(axis, "minus_loss")

    def headline(self, axis: str) -> list[float | None]:
        """Per setting the figure the axis is judged by: in per cent, a loss in nats; none without any prompt for it."""
        metric = self.metric[axis]
        losses = self.losses(axis)
        if metric == "loss":
            return [float(value) for value in losses.mean(axis=1)]
        if metric == "win_rate":
            against = losses[self.names.index("base")]
            return [float(100 * win_rate(-row, -against).mean()) for row in losses]
        values = self._column(axis, metric)
        return [float(100 * row.mean()) if row.size else None for row in values]

    def _rows(self, axis: str, measure: str) -> list[int]:
        """The axis's rows that can give a measure."""
        at = [n for n, own in enumerate(self.axis_of) if own == axis]
        first = next(iter(self.scores.values()))
        return at if measure == "minus_loss" else [n for n in at if getattr(first[n], measure) is not None]

    def _column(self, axis: str, measure: str) -> Array:
        at = self._rows(axis, measure)
        if measure == "minus_loss":
            return np.array([[-scores[n].loss for n in at] for scores in self.scores.values()])
        return np.array([[getattr(scores[n], measure) for n in at] for scores in self.scores.values()])


@dataclass(frozen=True)
class Roles:
    """Which settings play which part; names of the sweep's settings.

    Attributes:
        dials: axis -> the settings of its dial, ascending.
        shares: axis -> mean share of its expert on its own prompts, for each of these.
        rest: the dial at rest.
        swept: everything the dial makes, without presets.
        fixed: the grid of fixed mixtures.
        rivals: what the sweep is compared with: fixed mixtures, merges, experts, joint LoRA, base.
    """

    dials: Mapping[str, Sequence[str]]
    shares: Mapping[str, Sequence[float]]
    rest: str
    swept: Sequence[str]
    fixed: Sequence[str]
    rivals: Sequence[str]


def surface(sweep: Sweep, roles: Roles, *, n_draws: int, seed: int) -> dict[str, Any]:
    """Figures of a sweep, for json.

    Returns:
        `measure`, `measurable` (axis -> rows that can give the measure of its figure), `n` (rows), `n_prompts`, `range`
        (axis -> worst and best over swept and fixed mixtures; the scale of all normalised values), `settings` (name ->
        by axis `measure`, `normalised`, `loss`, `headline`; and `front`), `dials`, `rivals`, and `volume` (none with
        more than four axes).
    """
    by_axis = [sweep.measures(axis) for axis in sweep.axes]
    means = np.stack([values.mean(axis=1) for values in by_axis], axis=1)  # (S, m)
    names = sweep.names
    rows = {name: row for row, name in enumerate(names)}
    swept, fixed = ([rows[name] for name in part] for part in (roles.swept, roles.fixed))
    low, span = _scale(means[[*swept, *fixed]])
    prompts = [sweep.clusters(axis) for axis in sweep.axes]
    drawn = np.stack([_drawn_means(*both, n_draws, seed) for both in zip(by_axis, prompts, strict=True)], axis=2)
    points, drawn_points = (means - low) / span, (drawn - low) / span  # (S, m), (D, S, m)
    halves = [(half - low) / span for half in _halves(by_axis, prompts)]
    front = dict(zip(roles.swept, pareto_front(points[swept]).tolist(), strict=True))
    return {
        "measure": sweep.measure_names(),
        "measurable": sweep.measurable(),
        "n": {axis: values.shape[1] for axis, values in zip(sweep.axes, by_axis, strict=True)},
        "n_prompts": {axis: int(of_axis.max()) + 1 for axis, of_axis in zip(sweep.axes, prompts, strict=True)},
        "range": {axis: [float(low[at]), float(low[at] + span[at])] for at, axis in enumerate(sweep.axes)},
        "settings": _settings(sweep, means, points, front),
        "dials": _dials(sweep, roles, means, points, drawn),
        "rivals": {name: _rival(rows[name], roles.swept, swept, points, drawn_points, halves) for name in roles.rivals},
        "volume": _volumes(points, drawn_points[:_VOLUME_DRAWS], swept, fixed),
    }


def _scale(means: Array) -> tuple[Array, Array]:
    low, high = means.min(axis=0), means.max(axis=0)
    return low, np.where(high > low, high - low, 1.0)


def _drawn_means(values: Array, prompts: NDArray[np.int64], n_draws: int, seed: int) -> Array:
    """(D, S) means over prompts drawn with replacement; the same prompts for all settings, so they stay paired."""
    n = int(prompts.max()) + 1
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_draws)[:, prompts]
    drawn: Array = counts @ values.T / counts.sum(axis=1, keepdims=True)
    return drawn


def _halves(by_axis: Sequence[Array], prompts: Sequence[NDArray[np.int64]]) -> list[Array]:
    """(S, m) means over every other prompt, and over the rest; none where an axis has but one prompt."""
    if min(int(of_axis.max()) for of_axis in prompts) < 1:
        return []
    return [
        np.stack([v[:, of % 2 == part].mean(axis=1) for v, of in zip(by_axis, prompts, strict=True)], axis=1)
        for part in (0, 1)
    ]


def _settings(sweep: Sweep, means: Array, points: Array, front: Mapping[str, bool]) -> dict[str, Any]:
    losses = {axis: sweep.losses(axis).mean(axis=1) for axis in sweep.axes}
    headlines = {axis: sweep.headline(axis) for axis in sweep.axes}
    return {
        name: {
            "front": front.get(name),
            "axes": {
                axis: {
                    "measure": float(means[row, at]),
                    "normalised": float(points[row, at]),
                    "loss": float(losses[axis][row]),
                    "headline": headlines[axis][row],
                }
                for at, axis in enumerate(sweep.axes)
            },
        }
        for row, name in enumerate(sweep.names)
    }


def _dials(sweep: Sweep, roles: Roles, means: Array, points: Array, drawn: Array) -> dict[str, Any]:
    """How every dial moves its own axis and the others."""
    rows = {name: row for row, name in enumerate(sweep.names)}
    found = {}
    for at, axis in enumerate(sweep.axes):
        along = [rows[name] for name in roles.dials[axis]]
        shares, rest = roles.shares[axis], rows[roles.rest]
        loss = sweep.losses(axis).mean(axis=1)[along]
        found[axis] = {
            "settings": list(roles.dials[axis]),
            "shares": list(shares),
            "spearman": _number(spearman(shares, means[along, at])),
            "spearman_interval": _interval(spearman(shares, drawn[:, along, at])),
            "spearman_of_loss": _number(-spearman(shares, loss)),
            "lowest": float(means[along[0], at]),
            "rest": float(means[rest, at]),
            "highest": float(means[along[-1], at]),
            "gain": float(means[along[-1], at] - means[along[0], at]),
            "gain_interval": _interval(drawn[:, along[-1], at] - drawn[:, along[0], at]),
            # What the others lose, in shares of their range, from this axis's lowest setting to its highest.
            "cost": {
                other: float(points[along[0], column] - points[along[-1], column])
                for column, other in enumerate(sweep.axes)
                if other != axis
            },
        }
    return found


def _rival(
    row: int, swept_names: Sequence[str], swept: Sequence[int], points: Array, drawn: Array, halves: Sequence[Array]
) -> dict[str, Any]:
    """The setting that comes closest to being at least as good on all axes, and its least lead.

    `interval` chooses the setting anew in every draw, as `gap` did; choosing the best of many flatters the sweep.
    `held_out` does not: chosen on one half of the prompts, measured on the other, both ways.
    """
    at, gap = best_match(points[swept], points[row])
    gaps = matched_gaps(drawn[:, swept], drawn[:, row]).max(axis=-1)
    held_out = None
    if halves:
        crossed = []
        for choose, measure in ((0, 1), (1, 0)):
            chosen, _ = best_match(halves[choose][swept], halves[choose][row])
            crossed.append(float((halves[measure][swept[chosen]] - halves[measure][row]).min()))
        held_out = float(np.mean(crossed))
    return {"matched_by": swept_names[at], "gap": gap, "interval": _interval(gaps), "held_out": held_out}


def _volumes(points: Array, drawn: Array, swept: Sequence[int], fixed: Sequence[int]) -> dict[str, Any] | None:
    """Share of the range's box that swept and fixed settings reach, and the difference; none with many axes."""
    if points.shape[1] > _VOLUME_AXES:
        return None
    ours, theirs = (hypervolume(points[rows]) for rows in (swept, fixed))
    interval = None
    if points.shape[1] <= _DRAWN_VOLUME_AXES:
        interval = _interval(np.array([hypervolume(one[swept]) - hypervolume(one[fixed]) for one in drawn]))
    return {"swept": ours, "fixed": theirs, "difference": ours - theirs, "interval": interval}


def _interval(draws: Array) -> list[float] | None:
    """95% percentile interval of the draws that have a value; none where fewer than half do."""
    given = draws[np.isfinite(draws)]
    if 2 * len(given) < len(draws) or not len(given):
        return None
    return [float(end) for end in np.quantile(given, [0.025, 0.975])]


def _number(value: Array) -> float | None:
    return float(value) if np.isfinite(value) else None
