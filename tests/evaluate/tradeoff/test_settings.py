from math import comb

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from alignx.config import DialPreset
from alignx.evaluate.tradeoff.settings import (
    DIAL_SHARES,
    dial_settings,
    dial_weights,
    grid_settings,
    preset_settings,
    simplex_grid,
    static_settings,
)
from alignx.stage2.dial import Dial

AXES = ["helpful", "harmless", "honest"]


@given(m=integers(1, 5), resolution=integers(1, 5))
def test_the_grid_holds_every_share_once(m, resolution):
    grid = simplex_grid(m, resolution)
    assert len(grid) == len(set(grid)) == comb(resolution + m - 1, m - 1)
    assert all(len(steps) == m and sum(steps) == resolution and min(steps) >= 0 for steps in grid)


def test_nine_settings_a_dial_named_by_the_share_they_come_to():
    weights = dial_weights(lambda weight: weight / (weight + 1))
    dials = dial_settings({axis: weights for axis in AXES})
    assert [setting.name for setting in dials["honest"]][:2] == ["dial-honest-10", "dial-honest-20"]
    assert dials["harmless"][-1].dial == Dial({"harmless": weights[-1]}) and len(dials["helpful"]) == 9


def test_grid_and_static_mixtures_lie_on_the_same_places():
    grid, static = grid_settings(AXES, 3), static_settings(AXES, 3)
    assert len(grid) == len(static) == 10
    assert grid[0].dial.weights == {"helpful": 3, "harmless": 0, "honest": 0}
    for one, other in zip(grid, static, strict=True):
        assert one.name.removeprefix("grid") == other.name.removeprefix("static")
        assert sum(other.dial.weights.values()) == 1 or abs(sum(other.dial.weights.values()) - 1) < 1e-12


def test_presets_are_placed_but_for_the_dial_at_rest():
    own = {"clinic": DialPreset(weights={"honest": 2.0}), "still": DialPreset()}
    names = [setting.name for setting in preset_settings(AXES, own)]
    leans = [f"preset-lean-{axis}" for axis in AXES]
    assert names == ["preset-clinic", "preset-cautious", "preset-frank", "preset-eager", *leans]


@given(odds=floats(1e-4, 1e4))
def test_a_dials_weights_come_to_the_shares_however_sure_the_router_is(odds):
    def share(weight: float) -> float:
        return odds * weight / (odds * weight + 1)

    weights = dial_weights(share)
    assert [share(weight) for weight in weights] == pytest.approx(DIAL_SHARES, abs=1e-9)
    assert list(weights) == sorted(weights)


def test_a_share_that_no_weight_reaches_has_the_end_of_the_dial():
    low, *_, high = dial_weights(lambda weight: 0.3 + 0.3 * weight / (weight + 1))
    assert low < 1e-7 and high > 1e7
