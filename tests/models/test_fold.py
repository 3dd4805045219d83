import pytest
import torch

from alignx.models.fingerprint import model_sha256, tensor_sha256
from alignx.models.fold import folded
from alignx.models.layers import adapted_modules


@pytest.fixture
def model(load_tiny):
    return load_tiny("gemma").model


def _updates(model):
    generator = torch.Generator().manual_seed(0)
    return {
        name: (lambda linear=linear: torch.randn(linear.weight.shape, generator=generator))
        for name, linear in adapted_modules(model, "all-linear").items()
    }


def test_updates_are_added_and_the_bits_put_back(model):
    before = model_sha256(model)
    weight = model.model.layers[0].self_attn.q_proj.weight
    original = weight.clone()
    with folded(model, {"model.layers.0.self_attn.q_proj": lambda: torch.ones_like(weight)}):
        torch.testing.assert_close(weight, original + 1)
    assert model_sha256(model) == before


def test_the_bits_are_put_back_after_an_error_inside(model):
    before = model_sha256(model)
    with pytest.raises(RuntimeError, match="inside"), folded(model, _updates(model)):
        assert model_sha256(model) != before
        raise RuntimeError("inside")
    assert model_sha256(model) == before


def test_the_bits_are_put_back_when_an_update_cannot_be_made(model):
    before, updates = model_sha256(model), _updates(model)
    updates[list(updates)[3]] = lambda: torch.ones(1, 1).expand(2, 3)
    with pytest.raises(RuntimeError), folded(model, updates):
        pass
    assert model_sha256(model) == before


def test_a_thousand_folds_do_not_drift(model):
    before = model_sha256(model)
    updates = {"model.layers.0.mlp.up_proj": lambda: torch.full((64, 32), 1e4)}
    for _ in range(1000):
        with folded(model, updates):
            pass
    assert model_sha256(model) == before


def test_fingerprints_tell_dtype_shape_and_bits_apart():
    tensors = [
        torch.zeros(4),
        -torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(4, dtype=torch.bfloat16),
        torch.zeros(0),
    ]
    assert len({tensor_sha256(tensor) for tensor in tensors}) == len(tensors)
    assert tensor_sha256(torch.arange(6).view(2, 3).T) == tensor_sha256(torch.arange(6).view(2, 3).T.contiguous())
