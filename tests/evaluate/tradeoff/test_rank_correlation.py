import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import integers
from scipy.stats import rankdata, spearmanr

from alignx.evaluate.tradeoff.rank_correlation import average_ranks, spearman

SERIES = arrays("float64", (3, 9), elements=integers(-5, 5).map(float))


@given(series=SERIES)
def test_ranks_and_correlations_agree_with_scipy(series):
    np.testing.assert_array_equal(average_ranks(series), rankdata(series, axis=1))
    x = series[0]
    for y, ours in zip(series, spearman(x, series), strict=True):
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert np.isnan(ours)
        else:
            assert ours == pytest.approx(spearmanr(x, y).statistic)


@given(series=SERIES)
def test_only_the_order_matters(series):
    x = np.arange(9.0)
    np.testing.assert_allclose(spearman(x, np.exp(series / 3)), spearman(np.exp(x), series), atol=1e-12)
    np.testing.assert_allclose(spearman(x, -series), -spearman(x, series), atol=1e-12)


def test_a_rising_series_gives_one_and_a_falling_one_minus_one():
    assert spearman([1, 2, 4, 8], [0.1, 0.2, 0.20001, 5]) == 1.0
    assert spearman([1, 2, 4, 8], [3, 2, 1, 0]) == -1.0


def test_shapes_are_checked():
    for x, y in (([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="n >= 2"):
            spearman(x, y)
