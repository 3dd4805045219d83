import doctest

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from alignx.report import markdown, smoothing, wording
from alignx.report.smoothing import moving_average, smoothing_window
from alignx.report.wording import listed, method_label, ordered_methods, signed_per_cent, verdict_on


@pytest.mark.parametrize("module", [wording, markdown, smoothing])
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


def test_methods_come_in_the_order_of_the_tables():
    given_names = [
        "oracle-best-expert",
        "joint-rate-0.1",
        "ties",
        "joint-mr",
        "alignx",
        "uniform",
        "expert-b",
        "joint",
        "expert-a",
        "base",
        "something-new",
        "ablation-best-probs",
    ]
    assert ordered_methods(given_names, ["a", "b"]) == [
        "base",
        "expert-a",
        "expert-b",
        "joint",
        "joint-mr",
        "uniform",
        "ties",
        "alignx",
        "ablation-best-probs",
        "joint-rate-0.1",
        "oracle-best-expert",
        "something-new",
    ]


def test_an_axis_keeps_its_spelling_in_labels():
    assert method_label("expert-to-the-point") == "expert: to-the-point"
    assert method_label("unheard-of") == "unheard-of"


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (-0.02, -0.03, -0.01, "better"),
        (0.02, 0.01, 0.03, "worse"),
        (-0.02, -0.05, 0.01, "not distinguishable"),
        (0.0, 0.0, 0.0, "not distinguishable"),
        (0.02, 0.0, 0.04, "not distinguishable"),
        (-0.02, -0.02, -0.02, "unknown"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(value, low, high, verdict):
    assert verdict_on(value, low, high) == verdict


@given(floats(-2, 2))
def test_signed_per_cent_reads_back(share):
    text = signed_per_cent(share).replace("\N{MINUS SIGN}", "-")
    assert float(text.rstrip("%")) == pytest.approx(100 * share, abs=0.0051)
    assert text not in {"-0.00%", "+0.00%"}


def test_words_are_listed():
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


@given(lists(floats(-5, 5), min_size=1, max_size=60), integers(1, 80))
def test_moving_average_keeps_the_length_and_the_range(values, window):
    smooth = moving_average(values, window)
    assert len(smooth) == len(values)
    assert min(values) - 1e-9 <= min(smooth) and max(smooth) <= max(values) + 1e-9


def test_moving_average_is_centred_and_cut_at_the_ends():
    assert moving_average([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, pytest.approx(11 / 3), 4.5]
    with pytest.raises(ValueError, match="at least 1"):
        moving_average([1.0], 0)


@given(integers(0, 5000))
def test_the_window_is_odd(n_steps):
    assert smoothing_window(n_steps) % 2 == 1
