"""What is swept: every axis's dial, a grid over the simplex, the presets, and the same grid as fixed mixtures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Literal

from alignx.config import DialPreset, RunConfig
from alignx.stage2.dial import Dial
from alignx.stage2.presets import preset_dial, preset_names

Kind = Literal["dial", "grid", "preset", "static"]

REST = "rest"
# Settings of a dial: mean shares of the mixture that the axis's expert gets on prompts of its own axis. Weights are
# factors on odds, so even steps of the weight would crowd where the share is near 0 or 1 and nothing moves any more.
DIAL_SHARES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# The largest weight that is tried; the smallest is one over it.
MAX_WEIGHT = 2.0**24
_BISECTION_STEPS = 40


@dataclass(frozen=True)
class Setting:
    """One point of the sweep.

    Attributes:
        name: unique; `rest`, `dial-<axis>-<share in per cent>`, `grid-2-1-1`, `preset-<name>` or `static-2-1-1`.
        kind: `dial` (one axis's weight moves), `grid` (weights on the simplex), `preset`, or `static` (the same
            mixture for every prompt).
        dial: weights, floors and strength; of a static mixture the weights are its shares.
        axis: whose weight moves along the dial; empty elsewhere.
    """

    name: str
    kind: Kind
    dial: Dial
    axis: str = ""


def swept_settings(config: RunConfig, weights: Mapping[str, Sequence[float]], resolution: int) -> list[Setting]:
    """Everything that is swept, the dial at rest first.

    Args:
        config: its axes and presets.
        weights: axis -> the weights along its dial.
        resolution: steps along an edge of the grid over the simplex.
    """
    axes = list(config.axes)
    return [
        Setting(REST, "dial", Dial()),
        *(setting for settings in dial_settings(weights).values() for setting in settings),
        *grid_settings(axes, resolution),
        *preset_settings(axes, config.presets),
        *static_settings(axes, resolution),
    ]


def dial_weights(own_share: Callable[[float], float]) -> tuple[float, ...]:
    """The weights at which an axis's expert gets each of `DIAL_SHARES`.

    Args:
        own_share: the axis's weight -> mean share of its expert on its own prompts; it rises with the weight.

    Returns:
        Nine weights, ascending; a share that no weight reaches has the end of what is tried.

    Example:
        >>> [round(weight, 3) for weight in dial_weights(lambda weight: weight / (weight + 1))[3:6]]
        [0.667, 1.0, 1.5]
    """
    return tuple(_weight_for(share, own_share) for share in DIAL_SHARES)


def _weight_for(share: float, own_share: Callable[[float], float]) -> float:
    """Bisection on the logarithm of the weight."""
    low, high = -log2(MAX_WEIGHT), log2(MAX_WEIGHT)
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        if own_share(2**middle) < share:
            low = middle
        else:
            high = middle
    return float(2**high)


def dial_name(axis: str, share: float) -> str:
    """The name of a setting along a dial."""
    return f"dial-{axis}-{100 * share:g}"


def dial_settings(weights: Mapping[str, Sequence[float]]) -> dict[str, list[Setting]]:
    """Axis -> settings of its dial, one for each of `DIAL_SHARES`; the others weigh 1.

    Args:
        weights: axis -> what `dial_weights` gives.
    """
    return {
        axis: [
            Setting(dial_name(axis, share), "dial", Dial({axis: weight}), axis)
            for share, weight in zip(DIAL_SHARES, of_axis, strict=True)
        ]
        for axis, of_axis in weights.items()
    }


def simplex_grid(m: int, resolution: int) -> list[tuple[int, ...]]:
    """Every way to share `resolution` steps among m axes, the corners among them.

    Example:
        >>> simplex_grid(2, 2)
        [(2, 0), (1, 1), (0, 2)]
    """
    if m == 1:
        return [(resolution,)]
    return [(first, *rest) for first in range(resolution, -1, -1) for rest in simplex_grid(m - 1, resolution - first)]


def grid_settings(axes: Sequence[str], resolution: int) -> list[Setting]:
    """Dials whose weights lie on the simplex; steps, not shares, so that equal ones are the dial at rest to the bit."""
    return [_on_grid("grid", axes, steps, 1.0) for steps in simplex_grid(len(axes), resolution)]


def static_settings(axes: Sequence[str], resolution: int) -> list[Setting]:
    """The same grid as mixtures that are the same for every prompt; the uniform merge is one of their kind."""
    return [_on_grid("static", axes, steps, 1 / resolution) for steps in simplex_grid(len(axes), resolution)]


def preset_settings(axes: Sequence[str], own: Mapping[str, DialPreset]) -> list[Setting]:
    """The presets that a run has, but for those that are the dial at rest, as `balanced` is."""
    dials = {name: preset_dial(name, axes, own) for name in preset_names(axes, own)}
    return [Setting(f"preset-{name}", "preset", dial) for name, dial in dials.items() if dial != Dial()]


def _on_grid(kind: Kind, axes: Sequence[str], steps: Sequence[int], unit: float) -> Setting:
    weights = {axis: unit * step for axis, step in zip(axes, steps, strict=True)}
    return Setting("-".join([kind, *map(str, steps)]), kind, Dial(weights))
