"""What is swept: every axis's dial, a grid over the simplex, the presets, and the same grid as fixed mixtures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alignx.config import DialPreset
from alignx.stage2.dial import Dial
from alignx.stage2.presets import preset_dial, preset_names

Kind = Literal["dial", "grid", "preset", "static"]

REST = "rest"
# Weights are factors on odds. A trained router gives a prompt's own axis odds of 10 to 100, so one to 256 either way
# takes its share from near 0 to near 1; powers of 4, so that presets (4 and 16) are points of the sweep.
DIAL_VALUES: tuple[float, ...] = tuple(4.0**power for power in range(-4, 5))


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


def dial_settings(axes: Sequence[str], values: Sequence[float] = DIAL_VALUES) -> dict[str, list[Setting]]:
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
