"""What can be told of quantised bases without a GPU: where they are refused, and that gates run on such layers."""

import pytest
import torch
from torch import nn

from alignx.config.files import parse_config
from alignx.errors import ConfigError, ModelError
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.models.load import load_base
from alignx.models.low_rank import LowRankUpdate
from alignx.models.quantised import check_quantisation, quantised_options

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
AXES = {"helpful": {"dataset": "alpaca"}}


class EightBitLinear(nn.Linear):
    """A layer whose weight is int8, as bitsandbytes' subclass of `nn.Linear` keeps it, with one scale a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.weight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * self.scale)


@NO_GPU
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_without_a_gpu_one_line_says_why_and_what_to_type(tiny_models, quantization):
    with pytest.raises(ModelError, match=f"`{quantization}`: needs a CUDA GPU.*set `quantization: none`") as caught:
        load_base(str(tiny_models["llama"]), quantization=quantization)
    assert "\n" not in str(caught.value)


@NO_GPU
def test_nothing_is_downloaded_before_the_refusal():
    with pytest.raises(ModelError, match="needs a CUDA GPU"):
        load_base("no-such-owner/no-such-model", quantization="4bit")


def test_a_gguf_file_is_not_quantised_twice():
    with pytest.raises(ModelError, match="GGUF file.*hub id or a folder"):
        check_quantisation("4bit", gguf=True)
    check_quantisation("none", gguf=True)


def test_options_name_the_published_formats():
    pytest.importorskip("bitsandbytes")
    assert quantised_options("8bit")["quantization_config"].load_in_8bit
    four = quantised_options("4bit")["quantization_config"]
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_without_quantisation_there_is_nothing_to_tell():
    assert quantised_options("none") == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stage1": {"method": "full", "shared_expert": False}}, "cannot be fine-tuned; set `stage1.method: lora`"),
        ({"stage1": {"shared_expert": True}}, "set `stage1.shared_expert: false`"),
        ({"stage1": {"shared_expert": False}, "stage2": {"merges": ["uniform", "ties"]}}, "merge `ties` adds to the"),
    ],
)
def test_what_adds_to_the_weights_is_refused_in_the_config(changes, says):
    with pytest.raises(ConfigError, match="quantization `4bit`: ") as caught:
        parse_config({"quantization": "4bit", "axes": AXES, **changes}, source="config.yaml")
    assert says in str(caught.value)


def test_lora_experts_alone_may_lie_on_quantised_weights():
    stage1 = {"shared_expert": False}
    assert parse_config({"quantization": "8bit", "axes": AXES, "stage1": stage1}, source="x").quantization == "8bit"


def test_gates_run_on_layers_whose_weights_are_no_floats(load_tiny):
    base, ids = load_tiny("llama"), torch.tensor([[5, 9, 11, 40, 7]])
    for name, linear in adapted_modules(base.model, "all-linear").items():
        base.model.set_submodule(name, EightBitLinear(linear))
    modules = adapted_modules(base.model, "all-linear")
    assert len(modules) == 4 * 7 and all(type(module) is EightBitLinear for module in modules.values())
    updates = {
        name: LowRankUpdate(torch.ones(2, module.in_features) / 50, torch.ones(module.out_features, 2) / 50, 1.0)
        for name, module in modules.items()
    }
    with torch.no_grad(), GatedModel(base.model, {"one": updates}) as gated:
        bare = base.model(ids).logits
        with gated.using(torch.ones(1, 1)):
            mixed = base.model(ids).logits
        with gated.using(None):
            assert torch.equal(base.model(ids).logits, bare)
    for name, module in modules.items():
        dense = nn.Linear(module.in_features, module.out_features, bias=False)
        dense.weight = nn.Parameter(module.weight * module.scale + updates[name].dense(), requires_grad=False)
        base.model.set_submodule(name, dense)
    with torch.no_grad():
        expected = base.model(ids).logits
    assert (mixed - expected).norm() <= 1e-5 * expected.norm()
