import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers

from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.truncate import thin_svd, truncate


def _matrix(seed, out=6, width=8):
    return torch.randn(out, width, generator=torch.Generator().manual_seed(seed))


def _update(seed, rank=3):
    generator = torch.Generator().manual_seed(seed)
    return LowRankUpdate(torch.randn(rank, 8, generator=generator), torch.randn(6, rank, generator=generator), -0.7)


@given(seed=integers(0, 999), rank=integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_the_dropped_norm_is_the_true_distance_and_no_rank_is_nearer(seed, rank):
    matrix = _matrix(seed)
    cut = truncate([("q", matrix)], rank)
    values = torch.linalg.svdvals(matrix)
    distance = float(torch.linalg.matrix_norm(matrix - cut.vector.updates["q"].dense()))
    assert cut.dropped["q"] == pytest.approx(float(values[rank:].norm()), abs=1e-5)
    assert distance == pytest.approx(cut.dropped["q"], abs=1e-4)
    assert cut.norms["q"] == pytest.approx(float(matrix.norm()), rel=1e-5)


@given(seed=integers(0, 999), rank=integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_factors_are_cut_as_their_dense_update_is(seed, rank):
    update = _update(seed)
    from_factors, from_dense = truncate([("q", update)], rank), truncate([("q", update.dense())], rank)
    assert from_factors.dropped["q"] == pytest.approx(from_dense.dropped["q"], abs=1e-4)
    kept = [cut.vector.updates["q"].dense() for cut in (from_factors, from_dense)]
    torch.testing.assert_close(*kept, rtol=1e-3, atol=1e-4)


def test_the_full_rank_drops_nothing():
    cut = truncate([("q", _update(0)), ("k", _update(1, rank=2))], 3)
    assert cut.overall == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(cut.vector.updates["q"].dense(), _update(0).dense())


def test_singular_values_and_vectors_rebuild_the_update():
    left, values, right = thin_svd(_update(0))
    torch.testing.assert_close((left * values @ right.T).float(), _update(0).dense())
    assert list(values) == sorted(values, reverse=True)


def test_what_lora_cannot_hold_counts_as_dropped_whole():
    norm, embedding = torch.full((4,), 2.0), torch.ones(10, 4)
    cut = truncate([("q", torch.eye(4)), ("norm", norm), ("model.embed_tokens", embedding)], 4)
    assert list(cut.vector.updates) == ["q"]
    assert cut.largest[1] == 1
    assert cut.mean == pytest.approx(2 / 3)
    assert cut.overall == pytest.approx(((16 + 40) / (4 + 16 + 40)) ** 0.5)


def test_a_zero_update_loses_no_share():
    cut = truncate([("q", torch.zeros(3, 3))], 1)
    assert cut.overall == cut.mean == 0
    assert torch.equal(cut.vector.updates["q"].dense(), torch.zeros(3, 3))


@pytest.mark.parametrize(("updates", "rank"), [([("q", torch.eye(2))], 0), ([("norm", torch.ones(2))], 1), ([], 1)])
def test_what_cannot_be_cut_is_refused(updates, rank):
    with pytest.raises(ValueError, match="rank 0|no parameter"):
        truncate(updates, rank)
