import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists

from alignx.errors import ConfigError
from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.dense_vector import DenseVector, write_dense
from alignx.stage1.experts import dense_updates
from alignx.stage1.task_vector import TaskVector, ties
from alignx.stage1.vector_merge import as_task_vector, dare_merge, densify, ties_merge, weighted_sum
from alignx.stage1.vector_source import VectorSource
from alignx.stage2.merges import DARE_DENSITY, TIES_DENSITY, Merge, merged_updates

SHAPES = {"layers.0.q": (6, 5), "layers.1.q": (4, 7)}


def _vector(seed, rank=2):
    generator = torch.Generator().manual_seed(seed)
    return TaskVector(
        {
            name: LowRankUpdate(
                torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator), 1.5
            )
            for name, (out, width) in SHAPES.items()
        }
    )


def _source(seed, folder=None, rank=2):
    vector = _vector(seed, rank)
    if folder is None:
        return VectorSource(f"v{seed}", vector)
    write_dense(folder, ((name, update.dense()) for name, update in vector.updates.items()), max_shard_bytes=1)
    return VectorSource(f"v{seed}", DenseVector(folder))


@given(weights=lists(floats(-3, 3), min_size=1, max_size=4), which=integers(0, 15))
@settings(max_examples=25, deadline=None)
def test_a_sum_is_the_same_whichever_inputs_are_dense(tmp_path_factory, weights, which):
    root = tmp_path_factory.mktemp("sum")
    folders = [root / str(at) if which >> at & 1 else None for at in range(len(weights))]
    sources = [_source(at, folder, rank=at + 1) for at, folder in enumerate(folders)]
    merged = list(weighted_sum(sources, weights))
    assert all(isinstance(update, LowRankUpdate) for _, update in merged) == (not any(folders))
    for name, tensor in densify(iter(merged)):
        expected = sum(w * _vector(at, at + 1).updates[name].dense() for at, w in enumerate(weights))
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-4)


def test_ties_is_taken_module_by_module(tmp_path):
    sources = [_source(0), _source(1, tmp_path / "dense")]
    for name, tensor in densify(ties_merge(sources, density=0.5, weights=[1, 2])):
        dense = [_vector(seed).updates[name].dense() for seed in (0, 1)]
        torch.testing.assert_close(tensor, ties(dense, density=0.5, weights=[1, 2]))


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_merges_are_those_of_stage_2(method):
    sources = [_source(0), _source(1), _source(2)]
    stage2 = merged_updates(
        Merge(method, 1.0, seed=5), {source.label: dense_updates(source.vector) for source in sources}
    )
    merged = (
        ties_merge(sources, density=TIES_DENSITY)
        if method == "ties"
        else dare_merge(sources, [1, 1, 1], density=DARE_DENSITY, seed=5)
    )
    for name, tensor in densify(merged):
        torch.testing.assert_close(tensor, stage2[name]())


def test_dare_is_seeded_by_name_and_seed():
    def dropped(seed):
        return dict(densify(dare_merge([_source(0)], [1], density=0.5, seed=seed)))

    one, again, other = dropped(0), dropped(0), dropped(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_full_density_is_the_plain_sum_and_mean():
    sources = [_source(0), _source(1)]
    added = dict(densify(weighted_sum(sources, [0.5, 2])))
    for name, tensor in densify(dare_merge(sources, [0.5, 2], density=1.0)):
        torch.testing.assert_close(tensor, added[name])
    for name, tensor in densify(ties_merge(sources[:1], density=1.0)):
        torch.testing.assert_close(tensor, sources[0].tensor(name))


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_outside_its_range_is_refused_before_anything_is_read(density):
    with pytest.raises(ConfigError, match="density"):
        ties_merge([], density=density)
    with pytest.raises(ConfigError, match="density"):
        dare_merge([], [], density=density)


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ([1.0], "1 weights for 2"),
        ([1.0, 2.0, 3.0], "3 weights"),
        ([1.0, float("nan")], "weight nan"),
        ([], "0 weights"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, fault):
    sources = [_source(0), _source(1)]
    for merge in (weighted_sum, dare_merge, lambda vectors, given: ties_merge(vectors, weights=given)):
        with pytest.raises(ConfigError, match=fault):
            merge(sources, weights)


def test_a_dense_update_has_no_factors():
    with pytest.raises(ValueError, match="truncate it first"):
        as_task_vector(ties_merge([_source(0)]))
