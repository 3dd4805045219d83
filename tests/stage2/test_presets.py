import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from

from alignx.config import DialPreset
from alignx.errors import DialError
from alignx.stage2.dial import Dial
from alignx.stage2.presets import BUILT_IN, overlaid, preset_dial, preset_names

AXES = ("helpful", "harmless", "honest")
OWN = {"clinic": DialPreset(weights={"honest": 2.0}, floors={"harmless": 0.4}, strength=0.9)}


def test_balanced_is_the_dial_at_rest():
    assert preset_dial("balanced", AXES) == Dial()
    assert preset_dial("balanced", ["tone"]) == Dial()


def test_the_built_in_presets_lean_as_their_names_say():
    assert preset_dial("cautious", AXES) == Dial({"harmless": 4.0}, {"harmless": 0.2})
    assert preset_dial("frank", AXES).weights == {"honest": 4.0}
    assert preset_dial("eager", AXES).weights == {"helpful": 4.0}


@given(axes=lists(sampled_from([*AXES, "brief", "polite", "kind"]), min_size=1, max_size=6, unique=True))
def test_every_listed_name_is_a_dial_that_the_run_takes(axes):
    names = preset_names(axes, {})
    assert len(set(names)) == len(names)
    for name in names:
        dial = preset_dial(name, axes)
        assert dial.weight_vector(axes).shape == (len(axes),)
        assert float(dial.floor_vector(axes).sum()) <= 1
    for name in BUILT_IN.keys() - set(names):
        with pytest.raises(DialError, match="which this run lacks; presets of this run: "):
            preset_dial(name, axes)


def test_every_axis_has_a_lean():
    assert preset_dial("lean-brief", ["brief", "polite"]) == Dial({"brief": 16.0})


def test_a_runs_own_preset_is_found_and_goes_before_a_built_in_one():
    assert preset_dial("clinic", AXES, OWN) == Dial({"honest": 2.0}, {"harmless": 0.4}, 0.9)
    assert preset_dial("frank", AXES, {"frank": DialPreset(weights={"honest": 9.0})}).weights == {"honest": 9.0}
    assert preset_names(AXES, OWN)[:2] == ["clinic", "balanced"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cautius", "did you mean `cautious`"),
        ("clinik", "did you mean `clinic`"),
        ("lean-helpfull", "did you mean `lean-helpful`"),
        ("zzz", "presets of this run: clinic, balanced, cautious, frank, eager, lean-helpful"),
        ("", "presets of this run"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(DialError, match=hint):
        preset_dial(name, AXES, OWN)


def test_values_given_beside_a_preset_replace_its_own_one_by_one():
    cautious = preset_dial("cautious", AXES)
    assert overlaid(cautious, {"harmless": 8.0, "honest": 2.0}, {}) == Dial(
        {"harmless": 8.0, "honest": 2.0}, {"harmless": 0.2}
    )
    assert overlaid(cautious, {}, {"harmless": 0.0}, 0.5) == Dial({"harmless": 4.0}, {"harmless": 0.0}, 0.5)
    assert overlaid(cautious, {}, {}) == cautious
