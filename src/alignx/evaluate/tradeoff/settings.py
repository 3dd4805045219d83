"""What is swept: every axis's dial, a grid over the simplex, the presets, and the same grid as fixed mixtures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alignx.config import DialPreset
from alignx.stage2.dial import Dial
from alignx.stage2.presets import preset_dial, preset_names

Kind = Literal["dial", "grid", "preset", "static"]

REST = "rest"
# Steps of a dial's weights: each setting is this factor above the one before. Weights are factors on odds, and how far
# they must go for a share to move from near 0 to near 1 depends on how sure the router is.
DIAL_STEPS: tuple[float, ...] = (4.0, 8.0, 16.0)
NEAR = 0.1
_STEPS_EITHER_WAY = 4


@dataclass(frozen=True)
class Setting:
    """One point of the sweep.

    Attributes:
        name: unique; `rest`, `dial-<axis>-<value>`, `grid-2-1-1`, `preset-<name>` or `static-2-1-1`.
        kind: `dial` (one axis's weight moves), `grid` (weights on the simplex), `preset`, or `static` (the same
            mixture for every prompt).
        dial: weights, floors and strength; of a static mixture the weights are its shares.
        axis: whose weight moves along the dial; empty elsewhere.
    """

    name: str
    kind: Kind
    dial: Dial
    axis: str = ""


def dial_values(step: float) -> tuple[float, ...]:
    """Nine weights, `step` apart, the middle one 1.

    Example:
        >>> dial_values(4.0)[:5]
        (0.00390625, 0.015625, 0.0625, 0.25, 1.0)
    """
    return tuple(step**power for power in range(-_STEPS_EITHER_WAY, _STEPS_EITHER_WAY + 1))


def wide_enough(own_share: Callable[[str, float], float], axes: Sequence[str]) -> tuple[float, ...]:
    """The narrowest dial whose ends take every axis's own share to within `NEAR` of 0 and of 1; else the widest.

    Args:
        own_share: axis and its weight -> mean share of the axis's expert on its own prompts.
        axes: the axes.
    """
    for step in DIAL_STEPS:
        low, *_, high = dial_values(step)
        if all(own_share(axis, low) <= NEAR and own_share(axis, high) >= 1 - NEAR for axis in axes):
            return dial_values(step)
    return dial_values(DIAL_STEPS[-1])


def dial_settings(axes: Sequence[str], values: Sequence[float]) -> dict[str, list[Setting]]:
    """Axis -> settings of its dial in ascending order; the others weigh 1, and at 1 all axes share the rest."""
    return {
        axis: [
            Setting(REST, "dial", Dial())
            if value == 1
            else Setting(f"dial-{axis}-{value:g}", "dial", Dial({axis: value}), axis)
            for value in values
        ]
        for axis in axes
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
    """The presets that a run has, but for `balanced`, which is the rest, and the leans, which are on the dials."""
    names = [name for name in preset_names(axes, own) if name in own or not name.startswith("lean-")]
    dials = {name: preset_dial(name, axes, own) for name in names}
    return [Setting(f"preset-{name}", "preset", dial) for name, dial in dials.items() if dial != Dial()]


def _on_grid(kind: Kind, axes: Sequence[str], steps: Sequence[int], unit: float) -> Setting:
    weights = {axis: unit * step for axis, step in zip(axes, steps, strict=True)}
    return Setting("-".join([kind, *map(str, steps)]), kind, Dial(weights))
