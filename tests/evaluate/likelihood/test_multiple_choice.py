import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, lists

from alignx.evaluate.likelihood import multiple_choice
from alignx.evaluate.likelihood.multiple_choice import mc1, mc2
from alignx.evaluate.statistics import win_rate

LOG_PROBS = lists(floats(-3000, 0), min_size=1, max_size=8)
ANY_PACE = settings(deadline=None)  # a busy machine is no failure
LIKELY = lists(floats(-30, 0), min_size=1, max_size=8)


@ANY_PACE
@given(true=LIKELY, false=LIKELY)
def test_mc2_is_the_published_share_where_that_can_be_computed(true, false):
    # MC_calcs of the benchmark's code: exponentiate, divide by the total, add up the true answers.
    published = np.exp(true).sum() / (np.exp(true).sum() + np.exp(false).sum())
    assert mc2(true, false) == pytest.approx(published, rel=1e-9)


@ANY_PACE
@given(true=LOG_PROBS, false=LOG_PROBS, shift=floats(-5000, 0))
def test_mc2_shares_out_one_and_ignores_what_all_answers_have_in_common(true, false, shift):
    share = mc2(true, false)
    assert 0 <= share <= 1
    assert share + mc2(false, true) == pytest.approx(1)
    assert mc2(true[::-1], false[::-1]) == pytest.approx(share, abs=1e-9)
    assert mc2(np.add(true, shift), np.add(false, shift)) == pytest.approx(share, abs=1e-9)


def test_mc2_stays_finite_for_hopeless_answers():
    assert mc2([-2000.0], [-2000.0 - np.log(3)]) == pytest.approx(0.75)
    assert mc2([-1.0], [-2000.0]) == 1.0
    assert mc2([-2000.0], [-1.0]) == 0.0


@pytest.mark.filterwarnings("error")
def test_mc2_takes_answers_that_cannot_happen():
    assert mc2([-np.inf, -5.0], [-5.0]) == pytest.approx(0.5)
    assert mc2([-np.inf], [-5.0]) == 0.0
    assert mc2([-5.0], [-np.inf, -np.inf]) == 1.0


def test_mc1_wants_the_true_answer_strictly_first():
    assert mc1([-1.0, -2.0, -3.0]) == 1.0
    assert mc1([-2.0, -1.0, -3.0]) == 0.0
    assert mc1([-1.0, -3.0, -1.0]) == 0.0
    assert mc1([-2000.0, -2000.5]) == 1.0


@ANY_PACE
@given(log_probs=lists(floats(-3000, 0), min_size=2, max_size=8))
def test_mc1_is_right_exactly_when_no_false_answer_is_as_likely(log_probs):
    assert mc1(log_probs) == float(all(log_probs[0] > other for other in log_probs[1:]))
    assert mc1([log_probs[0], *log_probs[:0:-1]]) == mc1(log_probs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mc1([]), "at least one answer"),
        (lambda: mc1([-1.0]), "at least one false"),
        (lambda: mc1([-1.0, np.nan]), "at most 0"),
        (lambda: mc1([12.0, 15.0]), "at most 0"),
        (lambda: mc2([], [-1.0]), "true must have"),
        (lambda: mc2([-1.0], []), "false must have"),
        (lambda: mc2([[-1.0]], [-1.0]), r"shape \(answers,\)"),
        (lambda: mc2([0.5], [-1.0]), "at most 0"),
        (lambda: mc2([-np.inf], [-np.inf]), "-inf"),
    ],
)
def test_impossible_answers_are_refused_with_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@ANY_PACE
@given(pair=lists(floats(-10, 0), min_size=1, max_size=20))
def test_wins_of_both_sides_add_up_to_one(pair):
    ours, theirs = np.round(pair), np.round(pair[::-1])
    wins = win_rate.win_rate(ours, theirs)
    np.testing.assert_array_equal(wins + win_rate.win_rate(theirs, ours), 1)
    np.testing.assert_array_equal(wins == 0.5, ours == theirs)
    np.testing.assert_array_equal(wins == 1, ours > theirs)


def test_equal_infinite_scores_tie():
    assert win_rate.win_rate([-np.inf, -np.inf], [-np.inf, -1.0]).tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [([], [], "n >= 1"), ([1.0], [1.0, 2.0], r"\(1,\) and \(2,\)"), ([np.nan], [1.0], "NaN")],
)
def test_pairs_that_cannot_be_compared_are_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        win_rate.win_rate(ours, theirs)


@pytest.mark.parametrize("module", [multiple_choice, win_rate])
def test_docstring_examples_print_what_they_say(module):
    outcome = doctest.testmod(module)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
