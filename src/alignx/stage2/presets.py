"""Settings of the dial that go by a name: the built-in ones, one lean an axis, and a run's own."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from alignx.config import DialPreset
from alignx.errors import DialError
from alignx.stage2.dial import Dial

# Odds, so a lean turns a prompt that is nobody's own; what a prompt clearly needs it keeps (docs/dial.md).
BUILT_IN: Mapping[str, DialPreset] = MappingProxyType(
    {
        "balanced": DialPreset(),
        "cautious": DialPreset(weights={"harmless": 4.0}, floors={"harmless": 0.2}),
        "frank": DialPreset(weights={"honest": 4.0}),
        "eager": DialPreset(weights={"helpful": 4.0}),
    }
)
LEAN_PREFIX = "lean-"
LEAN_WEIGHT = 16.0

_NONE: Mapping[str, DialPreset] = MappingProxyType({})


def preset_names(axes: Sequence[str], own: Mapping[str, DialPreset] = _NONE) -> list[str]:
    """Names that `preset_dial` takes for a run: the run's own first, then the built-in ones that mean something to it.

    Args:
        axes: the run's axes.
        own: the run's own presets (`presets` in its config).
    """
    built_in = [name for name, preset in BUILT_IN.items() if _fitting(preset, axes) is not None]
    return list(dict.fromkeys([*own, *built_in, *(f"{LEAN_PREFIX}{axis}" for axis in axes)]))


def preset_dial(name: str, axes: Sequence[str], own: Mapping[str, DialPreset] = _NONE) -> Dial:
    """The dial that a name stands for.

    A run's own preset goes before a built-in one of the same name. A built-in preset leaves out the axes that the run
    lacks. `lean-<axis>` is there for every axis.

    Args:
        name: one of `preset_names`.
        axes: the run's axes.
        own: the run's own presets.

    Raises:
        DialError: no such preset, or a built-in one that speaks only of axes that the run lacks.

    Example:
        >>> preset_dial("lean-brief", ["brief", "polite"]).weights
        {'brief': 16.0}
    """
    if name in own:
        return _dial(own[name])
    if name in BUILT_IN:
        preset = _fitting(BUILT_IN[name], axes)
        if preset is None:
            missing = ", ".join(dict.fromkeys([*BUILT_IN[name].weights, *BUILT_IN[name].floors]))
            raise DialError(
                f"preset {name}: speaks of {missing}, which this run lacks; presets of this run: "
                f"{', '.join(preset_names(axes, own))}"
            )
        return _dial(preset)
    axis = name.removeprefix(LEAN_PREFIX)
    if name.startswith(LEAN_PREFIX) and axis in axes:
        return Dial({axis: LEAN_WEIGHT})
    known = preset_names(axes, own)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise DialError(f"preset {name}: unknown; {hint}presets of this run: {', '.join(known)}")


def overlaid(
    dial: Dial, weights: Mapping[str, float], floors: Mapping[str, float], strength: float | None = None
) -> Dial:
    """A dial with some of its values replaced; axes that are not named, and a strength of none, stay as they are."""
    return Dial({**dial.weights, **weights}, {**dial.floors, **floors}, dial.strength if strength is None else strength)


def _fitting(preset: DialPreset, axes: Sequence[str]) -> DialPreset | None:
    """The part of a preset that speaks of these axes; none when it speaks of axes, but of none of these."""
    weights = {axis: weight for axis, weight in preset.weights.items() if axis in axes}
    floors = {axis: floor for axis, floor in preset.floors.items() if axis in axes}
    if (preset.weights or preset.floors) and not (weights or floors):
        return None
    return DialPreset(weights=weights, floors=floors, strength=preset.strength)


def _dial(preset: DialPreset) -> Dial:
    return Dial(dict(preset.weights), dict(preset.floors), preset.strength)
