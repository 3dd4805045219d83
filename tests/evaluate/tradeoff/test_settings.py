from math import comb

from hypothesis import given
from hypothesis.strategies import floats, integers

from alignx.config import DialPreset
from alignx.evaluate.tradeoff.settings import (
    DIAL_STEPS,
    REST,
    dial_settings,
    dial_values,
    grid_settings,
    preset_settings,
    simplex_grid,
    static_settings,
    wide_enough,
)
from alignx.stage2.dial import Dial

AXES = ["helpful", "harmless", "honest"]


@given(m=integers(1, 5), resolution=integers(1, 5))
def test_the_grid_holds_every_share_once(m, resolution):
    grid = simplex_grid(m, resolution)
    assert len(grid) == len(set(grid)) == comb(resolution + m - 1, m - 1)
    assert all(len(steps) == m and sum(steps) == resolution and min(steps) >= 0 for steps in grid)


def test_nine_settings_a_dial_share_the_rest():
    values = dial_values(4.0)
    dials = dial_settings(AXES, values)
    assert len(values) == 9 and values[0] == 1 / 256 and values[-1] == 256
    assert [setting.name for setting in dials["honest"]][3:6] == ["dial-honest-0.25", REST, "dial-honest-4"]
    assert {axis: settings[4] for axis, settings in dials.items()} == dict.fromkeys(AXES, dials["helpful"][4])
    assert dials["harmless"][-1].dial == Dial({"harmless": 256.0})


def test_grid_and_static_mixtures_lie_on_the_same_places():
    grid, static = grid_settings(AXES, 3), static_settings(AXES, 3)
    assert len(grid) == len(static) == 10
    assert grid[0].dial.weights == {"helpful": 3, "harmless": 0, "honest": 0}
    for one, other in zip(grid, static, strict=True):
        assert one.name.removeprefix("grid") == other.name.removeprefix("static")
        assert sum(other.dial.weights.values()) == 1 or abs(sum(other.dial.weights.values()) - 1) < 1e-12


def test_presets_are_placed_but_for_those_that_the_dials_already_hold():
    own = {"clinic": DialPreset(weights={"honest": 2.0}), "still": DialPreset()}
    names = [setting.name for setting in preset_settings(AXES, own)]
    assert names == ["preset-clinic", "preset-cautious", "preset-frank", "preset-eager"]


@given(odds=floats(0.05, 20_000))
def test_a_dial_is_as_wide_as_the_router_is_sure(odds):
    def share(_: str, weight: float) -> float:
        return odds * weight / (odds * weight + 1)

    values = wide_enough(share, AXES)
    step = values[5]
    reaches = share("", values[0]) <= 0.1 and share("", values[-1]) >= 0.9
    assert values == dial_values(step) and (reaches or step == DIAL_STEPS[-1])
    narrower = [dial_values(one) for one in DIAL_STEPS if one < step]
    assert not any(share("", one[0]) <= 0.1 and share("", one[-1]) >= 0.9 for one in narrower)
