"""Pictures of the sweep: curves along each dial, triangles over all weights, pairs of axes with their fronts.

Every picture's numbers are also in `eval/tradeoff/settings.jsonl`, and no colour says what a shape or a word does not.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, cycle
from math import sqrt
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.tri import Triangulation

from alignx.config import MERGE_NAMES
from alignx.evaluate.tradeoff.pareto import pareto_front
from alignx.report.svg import BLUE, GREY, INK, PALETTE, VERMILLION, house_style, inline_svg
from alignx.report.tradeoff import best_fixed, setting_label, weights_label
from alignx.report.wording import (
    BASE,
    EXPERT_PREFIX,
    JOINT,
    JOINT_MR,
    UNIFORM,
    method_label,
    number,
    per_cent,
)

GREEN, PINK, SKY = PALETTE[2], PALETTE[3], PALETTE[4]
_WIDTH = 4.4
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_METHOD_MARKS = {BASE: ("x", INK), JOINT: ("D", VERMILLION), JOINT_MR: ("d", VERMILLION), UNIFORM: ("s", INK)}
_TRIANGLE = ((0.0, 0.0), (1.0, 0.0), (0.5, sqrt(3) / 2))
# Settings nearer to each other than this in the triangle are one point of its colouring.
_SAME = 1e-6
_LEVELS = 12
_LONGEST_NAME = 28


def dial_figure(metrics: Mapping[str, Any], *, prefix: str = "dial") -> str:
    """One panel an axis: what every axis's measure does as this axis's weight is turned.

    Args:
        metrics: what `eval/tradeoff/metrics.json` holds.
        prefix: of the SVGs' ids, once on a page.
    """
    panels = []
    for at, (axis, dial) in enumerate(metrics["dials"].items()):
        places = dial["shares"]
        with house_style():
            figure = Figure(figsize=(_WIDTH, 3.7 + 0.2 * ((len(metrics["axes"]) + 2) // 2)), layout="constrained")
            axes = figure.subplots()
            for number_of, other in enumerate(metrics["axes"]):
                curve = [metrics["settings"][name]["axes"][other]["normalised"] for name in dial["settings"]]
                axes.plot(
                    places,
                    curve,
                    marker=_MARKERS[number_of % len(_MARKERS)],
                    color=PALETTE[number_of % len(PALETTE)],
                    linestyle=_DASHES[number_of % len(_DASHES)],
                    linewidth=2.4 if other == axis else 1.3,
                    markersize=5.5 if other == axis else 4,
                    label=_shortened(other),
                )
            rest = metrics["settings"]["rest"]["mean_pi"][axis][axis]
            axes.axvline(rest, color=GREY, linewidth=0.8, label="dial at rest")
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(axis="y")
            axes.set_xlabel(f"share of its expert (weight {weights_label(metrics, axis)})")
            axes.set_ylabel("of the range from worst to best")
            figure.suptitle(f"{axis} turned", x=0.01, ha="left", fontsize=10, fontweight="bold")
            figure.legend(loc="outside lower center", ncols=2, fontsize=8)
            label = f"Turning {axis} by its weight, {weights_label(metrics, axis)}: "
            label += "; ".join(
                f"{other} from {_place(metrics, dial['settings'][0], other)} to "
                f"{_place(metrics, dial['settings'][-1], other)}"
                for other in metrics["axes"]
            )
            panels.append(inline_svg(figure, prefix=f"{prefix}-{at}", label=f"{label} of its range."))
    return "\n".join(panels)


def triangle_figure(metrics: Mapping[str, Any], *, prefix: str = "triangle") -> str:
    """Of three axes, a triangle for each one's measure: a corner is one axis alone, the middle is the dial at rest.

    Returns:
        Nothing for another number of axes.
    """
    names = metrics["axes"]
    if len(names) != 3:
        return ""
    places, rows = _on_triangle(metrics)
    panels = []
    for at, axis in enumerate(names):
        values = np.array([metrics["settings"][row]["axes"][axis]["normalised"] for row in rows])
        with house_style():
            figure = Figure(figsize=(3.6, 3.55), layout="constrained")
            axes = figure.subplots()
            low, high = float(values.min()), float(values.max())
            levels = np.linspace(low, high if high > low else low + 1, _LEVELS + 1)
            filled = axes.tricontourf(Triangulation(*places.T), values, levels=levels, cmap="viridis")
            axes.plot(*np.array([*_TRIANGLE, _TRIANGLE[0]]).T, color=INK, linewidth=1)
            axes.plot(*places.T, "o", color="white", markeredgecolor=INK, markeredgewidth=0.7, markersize=3.6)
            best = int(values.argmax())
            axes.plot(*places[best], "*", color="white", markeredgecolor=INK, markersize=13, label="best")
            for (x, y), name in zip(_TRIANGLE, names, strict=True):
                top = y > 0
                axes.annotate(
                    name,
                    (x, y),
                    xytext=(0, 6 if top else -7),
                    textcoords="offset points",
                    ha="center" if top else ("left" if x == 0 else "right"),
                    va="bottom" if top else "top",
                    fontweight="bold" if name == axis else "normal",
                )
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_xlim(-0.04, 1.04)
            axes.set_ylim(-0.12, 1.0)
            bar = figure.colorbar(
                filled, ax=axes, orientation="horizontal", shrink=0.75, format=PercentFormatter(1, decimals=0)
            )
            bar.outline.set_visible(False)
            bar.set_ticks([low, (low + high) / 2, high])
            bar.set_label(f"{axis}: of the range from worst to best", fontsize=8.5)
            figure.suptitle(f"{axis}, on its prompts", x=0.01, ha="left", fontsize=10, fontweight="bold")
            label = f"{axis} over all weights: best at {setting_label(rows[best])}, from {per_cent(low, 0)} to "
            panels.append(
                inline_svg(figure, prefix=f"{prefix}-{at}", label=f"{label}{per_cent(high, 0)} of its range.")
            )
    return "\n".join(panels)


def pair_figure(metrics: Mapping[str, Any], *, prefix: str = "pair") -> str:
    """One panel a pair of axes: the sweep with its front, fixed mixtures with theirs, and every comparator."""
    panels = []
    for at, (first, second) in enumerate(combinations(metrics["axes"], 2)):
        with house_style():
            figure = Figure(figsize=(_WIDTH, 5.0), layout="constrained")
            axes = figure.subplots()
            swept = _points(metrics, ("dial", "grid"), first, second)
            fixed = _points(metrics, ("static",), first, second)
            axes.plot(*_staircase(fixed), color=GREY, linewidth=1.1, linestyle=(0, (3, 2)))
            axes.plot(*fixed.T, "s", color="none", markeredgecolor=GREY, markersize=4.5, label="fixed mixture")
            axes.plot(*_staircase(swept), color=BLUE, linewidth=1.2)
            axes.plot(
                *swept.T, "o", color=BLUE, alpha=0.55, markersize=4.2, markeredgewidth=0, label="the dial's setting"
            )
            _comparators(axes, metrics, first, second, np.vstack([swept, fixed]))
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid()
            axes.set_xlabel(f"{_shortened(first)} (right is better)")
            axes.set_ylabel(f"{_shortened(second)} (up is better)")
            figure.suptitle(f"{first} against {second}", x=0.01, ha="left", fontsize=10, fontweight="bold")
            figure.legend(loc="outside lower center", ncols=2, fontsize=8)
            panels.append(inline_svg(figure, prefix=f"{prefix}-{at}", label=_pair_label(metrics, first, second)))
    return "\n".join(panels)


def _comparators(axes: Axes, metrics: Mapping[str, Any], first: str, second: str, shown: Any) -> None:
    """Rest, presets and methods; what lies far outside is drawn at the edge, as an arrow head."""
    low, high = shown.min(axis=0), shown.max(axis=0)
    room = 0.28 * np.where(high > low, high - low, 1.0)
    low, high = low - room, high + room
    edge = 0.03 * (high - low)
    merges, presets = cycle("XphdH8"), cycle("PdvHp8")
    experts = cycle("<>^v")
    for name, setting in metrics["settings"].items():
        if name != "rest" and setting["kind"] not in {"preset", "method"}:
            continue
        point = np.array([setting["axes"][axis]["normalised"] for axis in (first, second)])
        colour, size = INK, 6.5
        if name == "rest":
            marker, colour, size = "*", BLUE, 13.0
        elif setting["kind"] == "preset":
            marker, colour = next(presets), SKY
        elif name.startswith(EXPERT_PREFIX):
            marker, colour = next(experts), GREEN
        elif name in MERGE_NAMES and name != UNIFORM:
            marker, colour = next(merges), PINK
        else:
            marker, colour = {"joint": ("D", VERMILLION), "uniform": ("s", INK), "base": ("x", INK)}.get(
                name, ("h", INK)
            )
        inside = np.clip(point, low + edge, high - edge)
        out = bool((inside != point).any())
        label = _legend(name) + (" (beyond the edge)" if out else "")
        axes.plot(
            *inside,
            marker,
            color=colour,
            markersize=size,
            markeredgecolor="white" if marker not in "x1234" else colour,
            markeredgewidth=0.6 if marker not in "x1234" else 1.5,
            label=label,
            linestyle="none",
            zorder=4,
        )
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _legend(name: str) -> str:
    if name in MERGE_NAMES and name != UNIFORM:
        return f"merge: {method_label(name)}"
    return _shortened(setting_label(name))


def _shortened(name: str) -> str:
    """A name that two columns of a legend have room for."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def _points(metrics: Mapping[str, Any], kinds: Sequence[str], first: str, second: str) -> Any:
    return np.array(
        [
            [one["axes"][axis]["normalised"] for axis in (first, second)]
            for one in metrics["settings"].values()
            if one["kind"] in kinds
        ]
    )


def _staircase(points: Any) -> tuple[list[float], list[float]]:
    """Edge of what points of two axes dominate, from left to right."""
    front = points[pareto_front(points)]
    front = np.unique(front, axis=0)[::-1]  # first axis falling, so the second rises
    x: list[float] = []
    y: list[float] = []
    for at, (one, other) in enumerate(front):
        if at:
            x.append(float(one))
            y.append(float(front[at - 1][1]))
        x.append(float(one))
        y.append(float(other))
    return x, y


def _on_triangle(metrics: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Places (n, 2) of the swept settings by their weights' shares, and their names; each place once."""
    corners = np.array(_TRIANGLE)
    places: list[Any] = []
    rows = []
    for name, setting in metrics["settings"].items():
        if setting["kind"] in {"dial", "grid"}:
            weights = np.array([setting["weights"].get(axis, 1.0) for axis in metrics["axes"]])
            place = (weights / weights.sum()) @ corners
            if all(np.abs(place - other).max() > _SAME for other in places):
                places.append(place)
                rows.append(name)
    return np.array(places), rows


def _place(metrics: Mapping[str, Any], name: str, axis: str) -> str:
    return per_cent(metrics["settings"][name]["axes"][axis]["normalised"], 0)


def _pair_label(metrics: Mapping[str, Any], first: str, second: str) -> str:
    best = best_fixed(metrics)
    words = "; ".join(
        f"{_legend(name)} at {number(metrics['settings'][name]['axes'][first]['normalised'], 2)} and "
        f"{number(metrics['settings'][name]['axes'][second]['normalised'], 2)}"
        for name in ("rest", best, *(n for n, one in metrics["settings"].items() if one["kind"] == "method"))
    )
    return f"{first} against {second}, in shares of their ranges: {words}."
