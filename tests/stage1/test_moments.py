import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.stage1.moments import EqualMoments, Moments


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any),
    far=st.sampled_from([0.0, 1.0, 1e6]),
)
def test_moments_of_batches_are_those_of_all_rows(seed, sizes, far):
    rows = torch.randn(sum(sizes), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + far
    moments = Moments(5)
    for batch in rows.split(sizes):
        moments.add(batch)
    assert moments.n == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(dim=0))
    centred = rows - rows.mean(dim=0)
    # A mean of 1e6 takes up 6 of the 16 digits of the rows themselves, and squares double that.
    torch.testing.assert_close(moments.covariance(), centred.T @ centred / len(rows), rtol=1e-7, atol=1e-7)


def test_a_batch_that_is_added_stays_as_it_was():
    rows = torch.randn(4, 3)
    before = rows.clone()
    Moments(3).add(rows)
    assert torch.equal(rows, before)


def test_groups_weigh_the_same_whatever_their_size():
    small, large = torch.zeros(1, 2), torch.ones(1000, 2)
    pooled = EqualMoments()
    for rows in (small, large):
        group = Moments(2)
        group.add(rows)
        pooled.add(group)
    mean, second = pooled.mean_and_second()
    torch.testing.assert_close(mean, torch.full((2,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(second, torch.full((2, 2), 0.25, dtype=torch.float64))
    assert pooled.n == 1001


@pytest.mark.parametrize("ask", [lambda: Moments(3).covariance(), lambda: EqualMoments().mean_and_second()])
def test_moments_of_nothing_are_refused(ask):
    with pytest.raises(ValueError, match="not defined"):
        ask()
