import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats, integers, permutations, tuples

from alignx.evaluate.tradeoff.pareto import best_match, hypervolume, matched_gaps, pareto_front

# Few values, so that ties and equal points come up.
SHAPES = tuples(integers(1, 8), integers(1, 4))
POINTS = SHAPES.flatmap(lambda shape: arrays("float64", shape, elements=integers(0, 4).map(lambda n: n / 4)))


def volume_by_counting(points, steps=4):
    """Share of the unit cube's cells that some point dominates; exact where coordinates are multiples of 1 / steps."""
    m = points.shape[1]
    upper = np.stack(np.meshgrid(*[np.arange(1, steps + 1) / steps] * m, indexing="ij"), -1).reshape(-1, m)
    return float((points[None] >= upper[:, None]).all(2).any(1).mean())


@given(points=POINTS)
def test_the_hypervolume_is_the_share_of_cells_below_the_points(points):
    assert hypervolume(points) == pytest.approx(volume_by_counting(points))


@given(points=POINTS)
def test_only_the_front_counts_for_the_hypervolume(points):
    assert hypervolume(points[pareto_front(points)]) == pytest.approx(hypervolume(points))


@given(points=POINTS, extra=floats(0, 1))
def test_one_more_point_never_takes_volume_away(points, extra):
    more = np.vstack([points, np.full((1, points.shape[1]), extra)])
    assert hypervolume(more) >= hypervolume(points) - 1e-12


@given(points=POINTS)
def test_every_point_is_matched_by_one_on_the_front_and_no_front_point_is_beaten(points):
    front = points[pareto_front(points)]
    assert len(front)
    for point in points:
        assert best_match(front, point)[1] >= 0
    for one in front:
        assert not ((points >= one).all(1) & (points > one).any(1)).any()


@given(points=POINTS, order=permutations(range(4)))
def test_the_order_of_the_axes_does_not_matter(points, order):
    columns = [axis for axis in order if axis < points.shape[1]]
    assert (pareto_front(points[:, columns]) == pareto_front(points)).all()
    assert hypervolume(points[:, columns]) == pytest.approx(hypervolume(points))


@settings(max_examples=30)
@given(points=POINTS, shift=floats(0, 2))
def test_a_match_is_short_by_what_the_rival_is_raised(points, shift):
    at, gap = best_match(points, points[0])
    raised_at, raised = best_match(points, points[0] + shift)
    assert raised == pytest.approx(gap - shift) and gap >= 0
    assert matched_gaps(points, points[0])[raised_at] == pytest.approx(matched_gaps(points, points[0])[at])


def test_by_hand():
    assert hypervolume([[1.0, 1.0, 1.0]]) == 1.0
    assert hypervolume([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5]]) == pytest.approx(0.375)
    assert hypervolume([]) == 0.0
    assert hypervolume([[-1.0, 2.0]]) == 0.0
    assert hypervolume([[3.0, 2.0]], reference=1.0) == 2.0
    assert best_match([[0.9, 0.2], [0.4, 0.4]], [0.5, 0.5]) == (1, pytest.approx(-0.1))


def test_points_that_are_none_are_refused():
    for wrong in ([1.0, 2.0], [[float("nan"), 1.0]], np.zeros((3, 0))):
        with pytest.raises(ValueError, match="finite numbers of shape"):
            pareto_front(wrong)
