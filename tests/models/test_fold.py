import pytest
import torch

from alignx.errors import ModelError
from alignx.models.fingerprint import model_sha256, tensor_sha256
from alignx.models.fold import folded, weighted_updates
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


def test_any_parameter_can_be_folded_and_tied_weights_are_one(model):
    before = model_sha256(model)
    embedding, norm = model.get_input_embeddings().weight, model.model.norm.weight
    expected = norm + 1, embedding + 2
    updates = {"model.norm": lambda: torch.ones_like(norm), "model.embed_tokens": lambda: torch.full((), 2.0)}
    with folded(model, updates):
        assert torch.equal(norm, expected[0]) and torch.equal(model.get_output_embeddings().weight, expected[1])
    assert model_sha256(model) == before


def test_quantised_weights_are_refused(model):
    linear = model.model.layers[0].mlp.up_proj
    linear.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="is quantised .*set `quantization: none`"):
        with folded(model, {"model.layers.0.mlp.up_proj": lambda: torch.ones(2, 2)}):
            pass


def test_weighted_updates_are_summed_and_those_of_weight_zero_never_read():
    def unread():
        raise AssertionError

    one, two = {"a": lambda: torch.ones(2), "b": lambda: torch.ones(3)}, {"a": lambda: torch.full((2,), 10.0)}
    found = weighted_updates([(0.5, one), (2.0, two), (0.0, {"a": unread, "c": unread})])
    assert {name: update().tolist() for name, update in found.items()} == {"a": [20.5, 20.5], "b": [0.5] * 3}
    assert weighted_updates([(0.0, one)]) == {}
