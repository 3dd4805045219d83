import pytest
from torch import nn

from alignx.errors import ModelError
from alignx.models.layers import adapted_modules, decoder_layers

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_every_linear_layer_but_the_head_is_adapted(load_tiny, architecture):
    names = adapted_modules(load_tiny(architecture).model, "all-linear")
    assert len(names) == 4 * 7
    assert {name.rsplit(".", 1)[-1] for name in names} == PROJECTIONS


def test_layers_may_be_named(load_tiny):
    names = adapted_modules(load_tiny("llama").model, "q_proj, down_proj")
    assert {name.rsplit(".", 1)[-1] for name in names} == {"q_proj", "down_proj"} and len(names) == 8


def test_names_that_match_nothing_are_told_with_those_there_are(load_tiny):
    with pytest.raises(ModelError, match="`query` matches no linear layer; this model has: down_proj, gate_proj"):
        adapted_modules(load_tiny("llama").model, "query")


def test_decoder_layers_are_found(load_tiny, architecture):
    assert len(decoder_layers(load_tiny(architecture).model)) == 4


def test_an_architecture_without_layers_is_refused():
    class Other(nn.Module):
        def get_decoder(self):
            return nn.Identity()

    with pytest.raises(ModelError, match="Other has no `layers`"):
        decoder_layers(Other())
