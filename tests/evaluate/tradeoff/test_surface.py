"""Figures of sweeps made by hand: each must say what was put in."""

import numpy as np
import pytest

from alignx.evaluate.tradeoff.scoring import PromptScore
from alignx.evaluate.tradeoff.surface import Roles, Sweep, surface
from sweeps import make_sweep

AXES = ["helpful", "harmless", "honest"]


@pytest.fixture(scope="module")
def found():
    return make_sweep(AXES)


def test_a_measure_that_follows_the_share_gives_a_correlation_of_one(found):
    for axis, dial in found["dials"].items():
        assert dial["spearman"] == dial["spearman_of_loss"] == 1.0
        assert dial["spearman_interval"] == [1.0, 1.0]
        assert dial["lowest"] < dial["rest"] < dial["highest"]
        # Every prompt moves by as much, so there is nothing to be unsure of.
        assert dial["gain_interval"] == pytest.approx([dial["gain"]] * 2)
        assert all(cost > 0 for other, cost in dial["cost"].items() if other != axis)


def test_routing_dominates_fixed_mixtures_and_ties_with_its_own_corners(found):
    rivals = found["rivals"]
    for name in ("uniform", "static-1-1-1", "static-2-1-0", "base"):
        assert rivals[name]["gap"] > 0 and rivals[name]["held_out"] > 0
    assert rivals["expert-helpful"]["gap"] >= 0
    assert found["volume"]["swept"] > found["volume"]["fixed"]
    low, high = found["volume"]["interval"]
    assert 0 < low <= found["volume"]["difference"] <= high or low == pytest.approx(high)


def test_headlines_are_in_per_cent_and_base_wins_half_against_itself(found):
    assert found["settings"]["base"]["axes"]["helpful"]["headline"] == 50
    assert found["settings"]["expert-helpful"]["axes"]["helpful"]["headline"] == 100
    assert found["settings"]["expert-harmless"]["axes"]["harmless"]["headline"] == 100
    assert found["settings"]["expert-honest"]["axes"]["honest"]["headline"] == pytest.approx(100 * (0.4 + 1 / 3))


def three_points(values, rival):
    """One dial of three settings and a rival, on two axes: measures as given, the same for each of four prompts."""
    names = ["rest", "low", "high", "rival"]
    by_name = dict(zip(names, [*values, rival], strict=True))
    axis_of = ["a"] * 4 + ["b"] * 4
    scores = {name: [PromptScore(-pair[row > 3]) for row in range(8)] for name, pair in by_name.items()}
    roles = Roles(
        dials={"a": ["low", "rest", "high"], "b": ["high", "rest", "low"]},
        shares={"a": (0.2, 0.4, 0.6), "b": (0.2, 0.4, 0.6)},
        rest="rest",
        swept=names[:3],
        fixed=[],
        rivals=["rival"],
    )
    return surface(Sweep(["a", "b"], axis_of, scores, {"a": "loss", "b": "loss"}), roles, n_draws=100, seed=0)


def test_by_hand():
    found = three_points([(-2.0, -2.0), (-3.0, -1.0), (-1.0, -3.0)], (-2.5, -2.0))
    assert found["range"] == {"a": [-3.0, -1.0], "b": [-3.0, -1.0]}
    assert found["settings"]["rest"]["axes"]["a"] == {
        "measure": -2.0,
        "normalised": 0.5,
        "loss": 2.0,
        "headline": 2.0,
    }
    assert all(found["settings"][name]["front"] for name in ("rest", "low", "high"))
    assert found["rivals"]["rival"]["matched_by"] == "rest" and found["rivals"]["rival"]["gap"] == 0
    assert found["dials"]["a"]["cost"] == {"b": 1.0} and found["volume"]["swept"] == 0.25
    beyond = three_points([(-2.0, -2.0), (-3.0, -1.0), (-1.0, -3.0)], (-1.5, -1.5))
    assert beyond["rivals"]["rival"]["gap"] == pytest.approx(-0.25)
    assert beyond["rivals"]["rival"]["interval"] == pytest.approx([-0.25, -0.25])


def test_a_dial_that_moves_nothing_has_no_correlation():
    found = three_points([(-2.0, -2.0)] * 3, (-2.0, -2.0))
    assert found["dials"]["a"]["spearman"] is None and found["dials"]["a"]["spearman_interval"] is None
    assert found["rivals"]["rival"]["gap"] == 0


@pytest.mark.parametrize(("given", "measure"), [(1, "minus_loss"), (2, "safe_margin"), (8, "safe_margin")])
def test_a_measure_that_under_a_quarter_of_the_prompts_can_give_is_not_an_axiss_own(given, measure):
    prompts = [PromptScore(1.0, safe_margin=0.2 if n < given else None) for n in range(8)]
    sweep = Sweep(["a"], ["a"] * 8, {"base": prompts, "rest": prompts}, {"a": "safe_preferred"})
    assert sweep.measurable() == {"a": given}
    assert sweep.measure_names() == {"a": measure}
    assert sweep.measures("a").shape == (2, 8 if measure == "minus_loss" else given)


def test_an_axis_without_the_answers_of_its_measure_is_read_by_its_loss():
    scores = {name: [PromptScore(1.0, mc2=0.5), PromptScore(2.0)] for name in ("base", "rest")}
    sweep = Sweep(["a", "b"], ["a", "b"], scores, {"a": "mc1", "b": "safe_preferred"})
    assert sweep.measure_names() == {"a": "mc2", "b": "minus_loss"}
    assert sweep.headline("b") == [None, None]
    np.testing.assert_array_equal(sweep.measures("b"), [[-2.0], [-2.0]])
    with pytest.raises(ValueError, match="a score for every prompt"):
        Sweep(["a"], ["a", "a"], {"x": [PromptScore(1.0)]}, {"a": "loss"})


def test_rows_of_one_prompt_are_drawn_together():
    """Two seeds on the same prompts, which agree: no surer than one of them."""
    rng = np.random.default_rng(0)
    losses = {name: rng.normal(2, 1, size=12) for name in ("low", "rest", "high")}
    axis_of, prompts = ["a"] * 6 + ["b"] * 6, [f"p{n}" for n in range(12)]
    along = ["low", "rest", "high"]
    dials, shares = {"a": along, "b": along[::-1]}, dict.fromkeys("ab", (0.2, 0.4, 0.6))
    roles = Roles(dials, shares, rest="rest", swept=along, fixed=[], rivals=["rest"])

    def figures(times, prompt_of):
        scores = {name: [PromptScore(float(one)) for one in [*of] * times] for name, of in losses.items()}
        sweep = Sweep(["a", "b"], axis_of * times, scores, {"a": "loss", "b": "loss"}, prompt_of)
        return surface(sweep, roles, n_draws=200, seed=0)

    once, twice, apart = figures(1, prompts), figures(2, prompts * 2), figures(2, [])
    for axis in ("a", "b"):
        assert twice["dials"][axis]["gain_interval"] == pytest.approx(once["dials"][axis]["gain_interval"])
        assert np.ptp(apart["dials"][axis]["gain_interval"]) < np.ptp(once["dials"][axis]["gain_interval"])
    assert twice["rivals"]["rest"]["held_out"] == pytest.approx(once["rivals"]["rest"]["held_out"])
    with pytest.raises(ValueError, match="every row must have a prompt"):
        Sweep(["a"], ["a"], {"x": [PromptScore(1.0)]}, {"a": "loss"}, ["p", "q"])
