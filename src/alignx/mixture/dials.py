"""The dial of every prompt, from whichever form it was given in."""

from collections.abc import Callable, Mapping, Sequence

from alignx.errors import ConfigError, DialError
from alignx.stage2.dial import Dial
from alignx.stage2.presets import overlaid

# One for all prompts, or one for each.
Weights = Mapping[str, float] | Sequence[Mapping[str, float]]


def dials_for(
    count: int,
    dial: Dial | Sequence[Dial] | None = None,
    *,
    axis_weights: Weights | None = None,
    floors: Weights | None = None,
    strength: float | Sequence[float] | None = None,
    preset: str | Sequence[str] | None = None,
    named: Callable[[str], Dial] | None = None,
) -> list[Dial]:
    """A dial for each of `count` prompts.

    Args:
        count: prompts.
        dial: one for all, or one for each; none with no parts either: the dial at rest.
        axis_weights: axis -> factor on its odds, for all prompts or for each.
        floors: axis -> least share, likewise.
        strength: scale of all experts, likewise.
        preset: name of a dial, likewise; the parts replace its values, axis by axis.
        named: finds the dial of a name.

    Raises:
        ConfigError: a dial and parts of one, or another number of them than of prompts.
        DialError: something that is no dial, weights, strength or name at all, or an unknown name; values are checked
            where they are used.
    """
    parts = {"axis_weights": axis_weights, "floors": floors, "strength": strength, "preset": preset}
    given = [name for name, part in parts.items() if part is not None]
    if dial is not None:
        if given:
            raise ConfigError(f"dial and {given[0]} are both given; put {given[0]} into the Dial, or drop the dial")
        return _each("dials", dial, count, Dial, "a Dial")
    weights = _each("axis_weights", {} if axis_weights is None else axis_weights, count, Mapping, "axis -> number")
    least = _each("floors", {} if floors is None else floors, count, Mapping, "axis -> number")
    scales = _each("strength", strength, count, object, "a number")
    below = [Dial()] * count
    if preset is not None and named is not None:
        below = [named(name) for name in _each("preset", preset, count, str, "a name")]
    return [overlaid(*each) for each in zip(below, weights, least, scales, strict=True)]


def _each(name: str, value: object, count: int, kind: type, says: str) -> list:  # type: ignore[type-arg]
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise ConfigError(f"{len(value)} {name} for {count} prompts; give one for all or one for each")
        values = list(value)
    else:
        values = [value] * count
    for each in values:
        if not isinstance(each, kind):
            raise DialError(f"{name} {each!r}: must be {says}, for all prompts or a list with one for each")
    return values
