import tracemalloc
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from alignx.runs.files import read_tensors, write_tensors
from alignx.stage1.latent import LatentSpace, fit_latent_space


def _states(seed: int, n: int = 50, depths: int = 2, hidden: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(hidden, hidden, generator=generator)
    return torch.randn(n, depths, hidden, generator=generator) @ mixing + torch.randn(hidden, generator=generator)


@pytest.fixture(scope="module")
def states() -> list[Tensor]:
    return [_states(0), _states(1), _states(2)]


@pytest.fixture(scope="module")
def space(states) -> LatentSpace:
    return fit_latent_space([[axis] for axis in states], (1, 3), 5)


def test_components_are_orthonormal(space):
    for block in space.components:
        torch.testing.assert_close(block @ block.T, torch.eye(5), rtol=0, atol=1e-5)


def test_every_block_has_unit_rms_over_the_training_prompts(space, states):
    signatures = space.signature(torch.cat(states))
    assert signatures.shape == (150, 10)
    for depth in range(2):
        assert float(space.block(signatures, depth).square().mean().sqrt()) == pytest.approx(1, rel=1e-4)


def test_signatures_are_centred(space, states):
    assert space.signature(torch.cat(states)).mean(dim=0).abs().max() < 1e-4


def test_every_axis_weighs_the_same(states):
    one = fit_latent_space([[axis] for axis in states], (1, 3), 5)
    repeated = fit_latent_space([[states[0].repeat(7, 1, 1)], [states[1]], [states[2]]], (1, 3), 5)
    for block, again in zip(one.components, repeated.components, strict=True):
        torch.testing.assert_close(block, again, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.block_scales, repeated.block_scales)


def test_one_axis_gives_scikit_learns_components():
    states = _states(3)
    space = fit_latent_space([[states]], (0, 1), 5)
    for depth in range(2):
        expected = torch.from_numpy(PCA(5).fit(states[:, depth].double().numpy()).components_).float()
        cosines = (space.components[depth] * expected).sum(dim=1).abs()
        torch.testing.assert_close(cosines, torch.ones(5), rtol=0, atol=1e-5)


def test_signs_do_not_depend_on_the_order_of_the_rows(states):
    space, again = (fit_latent_space([[s.flip(0) if flip else s] for s in states], (1, 3), 5) for flip in (False, True))
    for block, other in zip(space.components, again.components, strict=True):
        torch.testing.assert_close(block, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("n", "k", "width"), [(50, 100, 12), (4, 100, 3), (50, 1, 1)])
def test_a_block_is_no_wider_than_the_hidden_size_or_the_prompts(n, k, width):
    assert fit_latent_space([[_states(0, n=n)]], (0, 1), k).widths == [width, width]


def test_identical_prompts_stay_finite():
    space = fit_latent_space([[torch.ones(5, 1, 4)]], (0,), 2)
    assert torch.isfinite(space.signature(torch.ones(5, 1, 4))).all()


def test_it_is_read_back_to_the_bit(space, states, tmp_path):
    write_tensors(tmp_path / "latent.safetensors", space.tensors())
    again = LatentSpace.from_tensors(read_tensors(tmp_path / "latent.safetensors"))
    assert again.layers == space.layers and again.widths == space.widths
    assert torch.equal(again.signature(states[0]), space.signature(states[0]))


def test_a_negative_depth_counts_from_the_deepest(space, states):
    signatures = space.signature(states[0])
    assert torch.equal(space.block(signatures, -1), space.block(signatures, 1))


def _direct(states_by_axis: list[Tensor], depth: int) -> tuple[Tensor, Tensor]:
    """Mean and second moment from all states at once."""
    per_axis = [states[:, depth].double() for states in states_by_axis]
    mean = torch.stack([states.mean(dim=0) for states in per_axis]).mean(dim=0)
    return mean, torch.stack([(s - mean).T @ (s - mean) / s.shape[0] for s in per_axis]).mean(dim=0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    chunk=st.integers(1, 50),
    far=st.sampled_from([0.0, 1e4]),
)
def test_streamed_in_any_chunks_it_is_the_space_of_all_states_at_once(seed, sizes, chunk, far):
    states = [_states(seed + axis, n=n) + far for axis, n in enumerate(sizes)]
    space = fit_latent_space((iter(axis.split(chunk)) for axis in states), (1, 3), 4)
    again = fit_latent_space([axis.split(chunk) for axis in reversed(states)], (1, 3), 4)
    for depth in range(2):
        mean, second = _direct(states, depth)
        values = torch.linalg.eigvalsh(second)[-space.widths[depth] :]
        torch.testing.assert_close(space.means[depth], mean.float(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(again.means[depth], mean.float(), rtol=1e-6, atol=1e-6)
        scale = float((values.clamp_min(0).sum() / space.widths[depth]).sqrt())
        for found in (space, again):
            assert float(1 / found.block_scales[depth]) == pytest.approx(scale, rel=1e-5, abs=1e-6)
            # Directions of equal eigenvalues may turn within their plane; what they explain may not change.
            block = found.components[depth].double()
            explained = torch.trace(block @ second @ block.T)
            torch.testing.assert_close(explained, values.sum(), rtol=1e-6, atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_prompts():
    """Counted on the batches alive at once, since tensors are not Python objects that tracemalloc sees."""
    hidden, alive, most = 16, set(), 0

    def batches(n: int) -> Iterator[Tensor]:
        nonlocal most
        for number in range(n):
            states = torch.randn(8, 2, hidden, generator=torch.Generator().manual_seed(number))
            weakref.finalize(states, alive.discard, number)
            alive.add(number)
            most = max(most, len(alive))
            yield states

    peaks = []
    for n in (10, 200):
        most = 0
        tracemalloc.start()
        fit_latent_space([batches(n), batches(n)], (0, 1), 4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert most <= 2  # the batch in hand and the one being made
    assert peaks[1] < 2 * peaks[0] + 50_000


def test_an_axis_without_states_is_told():
    with pytest.raises(ValueError, match="no prompt states"):
        fit_latent_space([[_states(0)], []], (0, 1), 4)
