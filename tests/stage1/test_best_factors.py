import numpy as np
import pytest
import torch

from alignx.stage1.best_factors import best_factors


def _matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_dropped_norm_is_what_numpy_says(shape, rank):
    dense = _matrix(*shape)
    singular = np.linalg.svd(dense.double().numpy(), compute_uv=False)
    found = best_factors(dense, rank)
    assert found.squared_norm == pytest.approx((singular**2).sum(), rel=1e-9)
    assert found.squared_dropped == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("rank", [7, 8, 40])
def test_factors_of_full_rank_are_the_update(rank):
    dense = _matrix(12, 7)
    found = best_factors(dense, rank)
    assert found.update.a.shape == (rank, 7) and found.update.b.shape == (12, rank)
    torch.testing.assert_close(found.update.dense(), dense, rtol=1e-6, atol=1e-6)


def test_large_matrices_lose_hardly_more_than_they_must():
    """Singular values that fall slowly are the hard case for a randomised range finder."""
    dense = _matrix(600, 400) / 20 + _matrix(600, 3, seed=1) @ _matrix(3, 400, seed=2) / 20
    singular = np.linalg.svd(dense.double().numpy(), compute_uv=False)
    found = best_factors(dense, 8)
    left_out = (dense - found.update.dense()).double().square().sum().item()
    assert found.squared_dropped == pytest.approx(left_out, rel=1e-6)
    assert (singular[8:] ** 2).sum() <= left_out * (1 + 1e-6) <= 1.01 * (singular[8:] ** 2).sum()


def test_large_matrices_are_truncated_to_the_same_bits_each_time():
    dense = _matrix(300, 290)
    before = torch.get_rng_state()
    one, again, other = best_factors(dense, 4, seed=1), best_factors(dense, 4, seed=1), best_factors(dense, 4, seed=2)
    assert torch.equal(one.update.a, again.update.a) and not torch.equal(one.update.a, other.update.a)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_update_of_zeros_drops_nothing():
    found = best_factors(torch.zeros(5, 4), 2)
    assert (found.squared_norm, found.squared_dropped) == (0.0, 0.0)
