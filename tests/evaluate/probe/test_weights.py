import numpy as np
import pytest

from alignx.evaluate.probe.tax import tax_table
from alignx.evaluate.probe.weights import coverage_table, needed_weight, smallest_needed, weight_summary

WEIGHTS = np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.25, 0.5, 0.25]])
NEEDED = np.array([[True, True, False], [True, True, True], [False, True, True]])


def test_needed_weights_by_hand():
    np.testing.assert_allclose(needed_weight(WEIGHTS, NEEDED), [0.8, 1.0, 0.75])
    np.testing.assert_allclose(smallest_needed(WEIGHTS, NEEDED), [0.3, 0.0, 0.25])


def test_coverage_by_hand():
    even = np.full((3, 3), 1 / 3)
    table = coverage_table({"pi": WEIGHTS, "plain": even}, NEEDED, against="pi", n_draws=100, seed=0)
    ours = {measure: figure["value"] for measure, figure in table["figures"]["pi"].items()}
    # The second prompt needs every axis, so it says nothing about the weight on needed ones.
    assert ours == pytest.approx({"needed_weight": 0.775, "smallest_needed": 0.55 / 3, "all_served": 2 / 3})
    assert table["figures"]["plain"]["all_served"] == {"value": 1, "low": 1, "high": 1}
    gained = {measure: figure["value"] for measure, figure in table["difference"]["plain"].items()}
    expected = {"needed_weight": 0.775 - 2 / 3, "smallest_needed": 0.55 / 3 - 1 / 3, "all_served": -1 / 3}
    assert gained == pytest.approx(expected)


def test_where_every_prompt_needs_every_axis_the_sum_is_not_shown():
    table = coverage_table({"pi": WEIGHTS}, np.ones((3, 3), dtype=bool), against="pi", n_draws=100, seed=0)
    assert set(table["figures"]["pi"]) == {"smallest_needed", "all_served"}


def test_a_weight_summary_by_hand():
    found = weight_summary([0.0, 0.1, 0.2, 0.3, 0.9])
    assert found == pytest.approx({"min": 0.0, "p5": 0.02, "median": 0.2, "mean": 0.3})


def test_the_tax_by_hand():
    losses = {"base": np.array([2.0, 2.0, 1.0]), "ours": np.array([2.2, 2.2, 1.0]), "same": np.array([2.0, 2.0, 1.0])}
    table = tax_table(losses, ["a", "a", "own"], ["a"], base="base", n_draws=100, seed=0)
    assert table["loss"]["ours"] == {"a": {"value": 2.2}, "own": {"value": 1.0}, "average": {"value": 2.2}}
    assert table["relative"]["ours"]["a"]["value"] == pytest.approx(0.1)
    assert table["relative"]["ours"]["own"]["value"] == 0
    assert table["relative"]["same"]["average"] == {"value": 0, "low": 0, "high": 0}
    assert "base" not in table["relative"]


def test_kinds_weigh_the_same_in_the_average_whatever_their_size():
    losses = {"base": np.ones(4), "ours": np.array([2.0, 2.0, 2.0, 1.0])}
    table = tax_table(losses, ["a", "a", "a", "b"], ["a", "b"], base="base", n_draws=100, seed=0)
    assert table["loss"]["ours"]["average"]["value"] == 1.5
    assert table["relative"]["ours"]["average"]["value"] == pytest.approx(0.5)
