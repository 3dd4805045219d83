import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignx.models.fused_lora import fused_lora


def _wrapped(load_tiny, **options):
    torch.manual_seed(0)
    base = load_tiny("llama")
    lora = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", init_lora_weights=False, **options)
    return base, get_peft_model(base.model, lora).train()


def _gradients(model, ids):
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return loss.detach(), {name: weight.grad.clone() for name, weight in trained.items()}


def test_value_and_gradients_are_pefts(load_tiny):
    base, model = _wrapped(load_tiny)
    ids = torch.arange(6, 26).view(2, 10)
    expected_loss, expected = _gradients(model, ids)
    with fused_lora(model) as count:
        loss, found = _gradients(model, ids)
    assert count == 7 * 4 and found.keys() == expected.keys()
    assert loss == pytest.approx(expected_loss.item(), rel=1e-6)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm()


def test_in_bf16_it_is_no_further_from_float32_than_peft_is(load_tiny):
    base, model = _wrapped(load_tiny)
    ids = torch.arange(6, 46).view(2, 20)
    _, exact = _gradients(model, ids)

    def error() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, found = _gradients(model, ids)
        return sum(float((found[name] - exact[name]).norm()) for name in exact)

    by_peft = error()
    with fused_lora(model):
        assert 0 < error() <= 1.1 * by_peft


def test_layers_with_dropout_keep_their_own_forward_pass(load_tiny):
    _, model = _wrapped(load_tiny, lora_dropout=0.1)
    with fused_lora(model) as count:
        assert count == 0


def test_pefts_forward_pass_is_back_afterwards(load_tiny):
    _, model = _wrapped(load_tiny)
    with fused_lora(model):
        pass
    assert not any("forward" in vars(module) for module in model.modules())
