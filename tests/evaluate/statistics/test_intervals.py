import doctest

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sampled_from

from alignx.evaluate.statistics import intervals
from alignx.evaluate.statistics.intervals import (
    bootstrap_interval,
    bootstrap_ratio,
    bootstrap_stratified_mean,
    stratified_mean,
)

SEEDS = integers(0, 2**16)


def _rows(seed, n, n_strata=3, n_clusters=None):
    """Values with a mean and a size of its own in every stratum; clusters lie within strata."""
    rng = np.random.default_rng(seed)
    strata = np.concatenate([np.arange(n_strata), rng.integers(0, n_strata, n - n_strata) ** 2 // n_strata])
    values = rng.normal(size=n) + 2.0 * strata
    return values, strata, strata * 1000 + rng.integers(0, n_clusters or n, n)


def _width(interval):
    return interval[1] - interval[0]


def _slow_draws(values, strata, clusters, n_draws, statistic):
    """Index loops: in each stratum as many clusters as there are, each with all its rows."""
    rng = np.random.default_rng(99)
    members = {
        stratum: [np.flatnonzero(clusters == one) for one in np.unique(clusters[strata == stratum])]
        for stratum in np.unique(strata)
    }
    draws = []
    for _ in range(n_draws):
        rows = np.concatenate(
            [groups[k] for groups in members.values() for k in rng.integers(0, len(groups), len(groups))]
        )
        draws.append(statistic(values[rows], strata[rows]))
    return np.array(draws)


def test_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=60)
    expected = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    interval = bootstrap_interval(values, n_draws=20_000)
    np.testing.assert_allclose(interval, expected.confidence_interval, atol=0.02 * _width(interval))


@pytest.mark.parametrize(
    ("ours", "statistic"),
    [
        (lambda v, s, c: bootstrap_interval(v, strata=s, clusters=c, n_draws=8000), lambda v, s: v.mean()),
        (
            lambda v, s, c: bootstrap_stratified_mean(v, s, c, n_draws=8000),
            lambda v, s: np.mean([v[s == one].mean() for one in np.unique(s)]),
        ),
    ],
)
def test_interval_is_that_of_index_loops_over_clusters_within_strata(ours, statistic):
    values, strata, clusters = _rows(3, 90, n_clusters=12)
    interval = ours(values, strata, clusters)
    slow = np.quantile(_slow_draws(values, strata, clusters, 4000, statistic), [0.025, 0.975])
    np.testing.assert_allclose(interval, slow, atol=0.05 * _width(interval))


@pytest.mark.parametrize("clustered", [False, True])
def test_interval_covers_the_mean_about_95_times_in_100(clustered):
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=60)
        values = np.repeat(shared, 2) + 0.3 * rng.normal(size=120) if clustered else shared
        clusters = np.repeat(np.arange(60), 2) if clustered else None
        low, high = bootstrap_interval(values, clusters=clusters, n_draws=400, seed=seed)
        covered.append(low <= 0 <= high)
    assert 0.90 <= np.mean(covered) <= 0.98


def test_repeated_rows_narrow_only_an_interval_that_does_not_know_it():
    values = np.random.default_rng(0).normal(size=100)
    repeated, prompts = np.repeat(values, 4), np.repeat([f"prompt {i}" for i in range(100)], 4)
    honest = _width(bootstrap_interval(repeated, clusters=prompts))
    assert honest == pytest.approx(_width(bootstrap_interval(values)), rel=0.1)
    assert _width(bootstrap_interval(repeated)) == pytest.approx(honest / 2, rel=0.1)


def test_strata_that_differ_narrow_the_interval_when_they_are_kept_apart():
    values, strata = np.concatenate([np.zeros(50), np.ones(50)]), np.repeat(["a", "b"], 50)
    assert _width(bootstrap_interval(values, strata=strata)) == 0
    assert _width(bootstrap_interval(values)) > 0.1


def test_a_cluster_in_several_strata_is_drawn_as_one():
    values = np.random.default_rng(0).normal(size=80)
    both, strata, prompts = np.tile(values, 2), np.repeat(["a", "b"], 80), np.tile(np.arange(80), 2)
    whole = _width(bootstrap_stratified_mean(both, strata, prompts))
    assert whole == pytest.approx(_width(bootstrap_interval(values)), rel=0.1)
    assert _width(bootstrap_stratified_mean(both, strata)) == pytest.approx(whole / np.sqrt(2), rel=0.1)


@given(seed=SEEDS, n=integers(3, 60), level=floats(0.5, 0.99), grouped=sampled_from([False, True]))
@settings(max_examples=50, deadline=None)
def test_shifting_and_scaling_values_shifts_and_scales_the_interval(seed, n, level, grouped):
    values, strata, clusters = _rows(seed, n, n_clusters=8)
    groups = {"strata": strata, "clusters": clusters} if grouped else {}
    low, high = bootstrap_interval(values, n_draws=100, level=level, **groups)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    moved = bootstrap_interval(3 * values + 5, n_draws=100, level=level, **groups)
    np.testing.assert_allclose(moved, (3 * low + 5, 3 * high + 5), rtol=1e-9, atol=1e-9)


@given(seed=SEEDS, n=integers(3, 60))
@settings(max_examples=50, deadline=None)
def test_order_of_rows_and_names_of_ids_do_not_matter(seed, n):
    values, strata, clusters = _rows(seed, n, n_clusters=8)
    order = np.random.default_rng(seed).permutation(n)
    expected = bootstrap_stratified_mean(values, strata, clusters, n_draws=50)
    names = [f"axis {one}" for one in strata[order]]
    moved = bootstrap_stratified_mean(values[order], names, clusters[order] * 3, n_draws=50)
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    assert stratified_mean(values[order], names) == pytest.approx(stratified_mean(values, strata))


def test_every_stratum_weighs_the_same():
    assert stratified_mean([0.0] * 9 + [1.0], ["a"] * 9 + ["b"]) == 0.5
    assert bootstrap_stratified_mean([0.0] * 9 + [1.0], ["a"] * 9 + ["b"]) == (0.5, 0.5)


def test_same_seed_gives_the_same_interval_however_it_is_chunked(monkeypatch):
    values, strata, clusters = _rows(0, 50)
    first = bootstrap_interval(values, strata=strata, clusters=clusters, n_draws=200, seed=5)
    assert bootstrap_interval(values, strata=strata, clusters=clusters, n_draws=200, seed=6) != first
    monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", 100)
    np.testing.assert_allclose(
        bootstrap_interval(values, strata=strata, clusters=clusters, n_draws=200, seed=5), first, rtol=1e-9
    )


def test_a_wider_level_gives_a_wider_interval():
    values = np.random.default_rng(0).normal(size=40)
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_row_gives_an_interval_of_no_width():
    assert bootstrap_interval([0.1]) == (0.1, 0.1)
    assert bootstrap_interval([0.1], clusters=["p"], strata=["a"]) == (0.1, 0.1)
    assert bootstrap_stratified_mean([0.1], ["a"]) == (0.1, 0.1)
    assert bootstrap_ratio([0.5], [2.0], ["a"]) == (0.25, 0.25, 0.25)


def test_one_cluster_gives_an_interval_of_no_width():
    low, high = bootstrap_interval([1.0, 2.0, 4.0], clusters=["p", "p", "p"])
    assert low == high == pytest.approx(7 / 3)


def test_ratio_is_of_the_averages_over_strata():
    regret, loss, axes = [0.1, 0.3, 0.5], [2.0, 4.0, 1.0], ["helpful", "helpful", "honest"]
    ratio, low, high = bootstrap_ratio(regret, loss, axes)
    assert ratio == pytest.approx(((0.1 + 0.3) / 2 + 0.5) / (3 + 1))
    assert low <= ratio <= high


@given(seed=SEEDS, share=floats(-0.5, 2))
@settings(max_examples=30, deadline=None)
def test_a_constant_ratio_has_no_width_because_rows_are_paired(seed, share):
    values, strata, clusters = _rows(seed, 30, n_clusters=6)
    loss = 1 + np.abs(values)
    np.testing.assert_allclose(
        bootstrap_ratio(share * loss, loss, strata, clusters, n_draws=50), [share] * 3, rtol=1e-9, atol=1e-12
    )


def test_two_thousand_draws_of_many_prompts_stay_small_in_time():
    values, strata, clusters = _rows(0, 4000)
    low, high = bootstrap_stratified_mean(values, strata, clusters)
    assert low < stratified_mean(values, strata) < high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "n >= 1"),
        (lambda: bootstrap_interval([[1.0]]), r"shape \(n,\)"),
        (lambda: bootstrap_interval([1.0, np.nan]), "finite"),
        (lambda: bootstrap_interval([1.0, 2.0], clusters=["p"]), "clusters"),
        (lambda: bootstrap_interval([1.0, 2.0], strata=["a"]), "strata"),
        (lambda: bootstrap_interval([1.0], n_draws=0), "n_draws"),
        (lambda: bootstrap_interval([1.0], level=1.0), "level"),
        (lambda: stratified_mean([], []), "n >= 1"),
        (lambda: stratified_mean([1.0], ["a", "b"]), "strata"),
        (lambda: bootstrap_stratified_mean([], []), "n >= 1"),
        (lambda: bootstrap_ratio([], [], []), "n >= 1"),
        (lambda: bootstrap_ratio([1.0], [1.0, 2.0], ["a"]), "one shape"),
        (lambda: bootstrap_ratio([1.0], [0.0], ["a"]), "denominator"),
        (lambda: bootstrap_ratio([1.0, 1.0, 1.0], [-1.0, 1.0, 1.0], ["a"] * 3), "changes sign"),
    ],
)
def test_impossible_input_is_refused_with_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_docstring_examples_print_what_they_say():
    outcome = doctest.testmod(intervals)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
