import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers
from scipy.linalg import subspace_angles

from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.dense_vector import DenseVector, write_dense
from alignx.stage1.geometry import (
    cosines_of,
    kind_of,
    layer_of,
    main_directions,
    measure_vectors,
    principal_angles,
    summarise_angles,
    update_angles,
    update_subspaces,
)
from alignx.stage1.task_vector import TaskVector
from alignx.stage1.vector_source import VectorSource

seeds = integers(0, 2**16)
NAMES = ("layers.0.q", "layers.0.k", "layers.10.q", "layers.2.q", "norm.gate")


def _basis(seed, d, k):
    return torch.linalg.qr(torch.randn(d, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def _vector(seed, rank=2, names=NAMES, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    return TaskVector(
        {
            name: LowRankUpdate(
                torch.randn(rank, 7, generator=generator), torch.randn(6, rank, generator=generator), scale
            )
            for name in names
        }
    )


def _source(label, vector):
    return VectorSource(label, vector)


@given(seed=seeds, k1=integers(1, 5), k2=integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_principal_angles_are_scipys(seed, k1, k2):
    one, other = _basis(seed, 8, k1), _basis(seed + 1, 8, k2)
    expected = sorted(subspace_angles(one.numpy(), other.numpy()))
    assert principal_angles(one, other).tolist() == pytest.approx(expected, abs=1e-7)
    assert principal_angles(other, one).tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-4, 0.5, math.pi / 2 - 1e-8, math.pi / 2])
def test_small_and_right_angles_keep_their_digits(angle):
    one = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    other = torch.tensor([[math.cos(angle)], [math.sin(angle)], [0.0]], dtype=torch.float64)
    assert float(principal_angles(one, other)) == pytest.approx(angle, rel=1e-6, abs=1e-15)


@given(seed=seeds, rank=integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_an_updates_subspaces_are_its_row_and_column_space(seed, rank):
    (update, *_) = _vector(seed, rank).updates.values()
    found, dense = update_subspaces(update), update.dense().double()
    assert found["input"].shape == (7, rank) and found["output"].shape == (6, rank)
    rebuilt = found["output"] @ found["output"].T @ dense @ found["input"] @ found["input"].T
    torch.testing.assert_close(rebuilt, dense, rtol=1e-4, atol=1e-4)


def test_a_rank_that_is_not_used_is_no_direction():
    a = torch.randn(3, 7)
    b = torch.zeros(6, 3)
    b[:, 0] = 1
    assert update_subspaces(LowRankUpdate(a, b, 1.0))["input"].shape == (7, 1)
    assert update_subspaces(LowRankUpdate(a, torch.zeros(6, 3), 1.0))["output"].shape == (6, 0)


@given(seed=seeds, factor=floats(0.1, 10))
@settings(max_examples=15, deadline=None)
def test_scaling_and_negating_turn_no_subspace(seed, factor):
    vector = _vector(seed)
    for angles in update_angles({"a": vector, "b": vector.scaled(-factor)}).values():
        for side in ("input", "output"):
            assert angles[side].mean == pytest.approx(0, abs=1e-3)
            assert angles[side].overlap == pytest.approx(1)


def test_every_pair_is_measured_once_on_both_sides():
    found = update_angles({"a": _vector(0), "b": _vector(1), "c": _vector(2, rank=3)})
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(angles["input"].smallest <= angles["input"].mean <= 90 for angles in found.values())
    assert all(list(a.curve) == sorted(a.curve) and len(a.curve) == 2 for pair in found.values() for a in pair.values())


def test_random_subspaces_overlap_as_chance_says():
    pairs = [(_basis(seed, 40, 4), _basis(seed + 1000, 40, 8)) for seed in range(200)]
    found = summarise_angles(pairs)
    assert found.chance == pytest.approx(8 / 40)
    assert found.overlap == pytest.approx(found.chance, rel=0.05)


def test_without_a_direction_there_is_no_angle():
    assert summarise_angles([]) is None
    assert summarise_angles([(torch.zeros(5, 0), _basis(0, 5, 2))]) is None


def test_main_directions_hold_the_share_with_the_fewest():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 4, generator=generator) * torch.tensor([10.0, 5.0, 1.0, 0.1]) + 7
    assert [main_directions(rows, share).shape[1] for share in (0.5, 0.9, 0.999, 1.0)] == [1, 2, 3, 4]
    assert abs(float(main_directions(rows, 0.5)[0, 0])) > 0.99
    assert main_directions(torch.ones(5, 3), 0.9).shape == (3, 0)
    for share in (0, 1.1):
        with pytest.raises(ValueError, match="share"):
            main_directions(rows, share)


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_norms_and_cosines_are_the_vectors_own_whether_factored_or_dense(tmp_path_factory, seed):
    one, other = _vector(seed), _vector(seed + 1, rank=3)
    folder = tmp_path_factory.mktemp("dense") / "vector"
    write_dense(folder, ((name, update.dense()) for name, update in other.updates.items()))
    for second in (other, DenseVector(folder)):
        found = measure_vectors([_source("one", one), _source("other", second)])
        assert found.norms() == pytest.approx([one.norm(), other.norm()], rel=1e-5)
        assert found.cosines()[0][1] == pytest.approx(one.cosine(other), abs=1e-5)
        assert found.cosines()[0][0] == pytest.approx(1)


def test_norms_by_layer_and_kind_add_up_in_squares():
    found = measure_vectors([_source("one", _vector(0)), _source("other", _vector(1))])
    by_layer, by_kind = found.norms_by(layer_of), found.norms_by(kind_of)
    assert list(by_layer) == ["0", "2", "10"]
    assert set(by_kind) == {"q", "k", "gate"}
    for at in (0, 1):
        assert sum(norms[at] ** 2 for norms in by_kind.values()) == pytest.approx(found.norms()[at] ** 2)
        assert sum(norms[at] ** 2 for norms in by_layer.values()) < found.norms()[at] ** 2


def test_a_zero_vector_is_orthogonal_to_all():
    assert cosines_of(torch.tensor([[0.0, 0.0], [0.0, 4.0]])) == [[0.0, 0.0], [0.0, 1.0]]


def test_names_tell_layer_and_kind():
    assert layer_of("model.layers.12.mlp.up_proj") == "12" and layer_of("model.norm") is None
    assert layer_of("transformer.h.3") == "3"
    assert kind_of("model.layers.12.mlp.up_proj") == "up_proj"
