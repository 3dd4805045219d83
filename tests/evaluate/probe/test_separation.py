import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from alignx.evaluate.probe.separation import auroc, auroc_draws, auroc_table, within

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(positives=scores, negatives=scores)
def test_auroc_is_scikit_learns(positives, negatives):
    labels = [1] * len(positives) + [0] * len(negatives)
    assert auroc(positives, negatives) == pytest.approx(roc_auc_score(labels, [*positives, *negatives]))


@given(positives=scores, negatives=scores)
def test_turning_both_sides_round_turns_auroc_round(positives, negatives):
    turned = auroc([-value for value in positives], [-value for value in negatives])
    assert turned == pytest.approx(1 - auroc(positives, negatives))


def test_a_draw_is_the_auroc_of_the_rows_it_draws():
    rng = np.random.default_rng(1)
    positives, negatives = rng.normal(1, 1, 7), rng.normal(0, 1, 9)
    draws = auroc_draws({"a": (positives, negatives)}, n_draws=20, seed=3)["a"]
    ours, theirs = np.random.default_rng([3, 1]), np.random.default_rng([3, 0])
    counts = ours.multinomial(7, np.full(7, 1 / 7), size=20), theirs.multinomial(9, np.full(9, 1 / 9), size=20)
    for draw, mine, others in zip(draws, *counts, strict=True):
        assert draw == pytest.approx(auroc(np.repeat(positives, mine), np.repeat(negatives, others)))


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    sides = {"a": (np.arange(5.0), np.arange(4.0))}
    at_once = auroc_draws(sides, n_draws=50, seed=0)["a"]
    monkeypatch.setattr("alignx.evaluate.probe.separation.DRAWN_AT_ONCE", 20)
    np.testing.assert_array_equal(auroc_draws(sides, n_draws=50, seed=0)["a"], at_once)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth, covered = 0.7602, 0  # of normals one standard deviation apart: Phi(1 / sqrt 2)
    for trial in range(150):
        sides = {"ours": {"a": (rng.normal(1, 1, 50), rng.normal(0, 1, 100))}}
        found = auroc_table(sides, ["a"], against="ours", n_draws=200, seed=trial)["auroc"]["ours"]["a"]
        covered += found["low"] <= truth <= found["high"]
    assert 0.88 <= covered / 150 <= 1


def test_the_average_leaves_out_kinds_that_do_not_count():
    near, far, below = np.array([1.0, 2.0]), np.array([9.0, 9.5]), np.array([0.0, 1.5, 3.0])
    table = auroc_table(
        {"ours": {"a": (near, below), "b": (far, below), "own": (below, below)}},
        ["a", "b"],
        against="ours",
        n_draws=50,
        seed=0,
    )
    found = {kind: figure["value"] for kind, figure in table["auroc"]["ours"].items()}
    assert found == {"a": 0.5, "b": 1.0, "own": 0.5, "average": 0.75}


def test_the_same_scores_differ_by_nothing_in_any_draw():
    sides = {"a": (np.array([1.0, 4.0, 2.0]), np.array([0.0, 3.0]))}
    table = auroc_table({"ours": sides, "theirs": sides}, ["a"], against="ours", n_draws=50, seed=0)
    assert table["difference"] == {"theirs": {kind: {"value": 0, "low": 0, "high": 0} for kind in ("a", "average")}}


def test_within_keeps_both_ends():
    assert within([1, 2, 3, 4], 2, 3).tolist() == [False, True, True, False]


@pytest.mark.parametrize(("positives", "negatives"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([[1.0]], [1.0])])
def test_sides_that_have_no_auroc_are_refused(positives, negatives):
    with pytest.raises(ValueError):
        auroc(positives, negatives)
