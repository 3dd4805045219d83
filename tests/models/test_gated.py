import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignx.models.fingerprint import model_sha256
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.stage1.task_vector import read_task_vector

NAMES = ("one", "two", "three")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [50, 41, 32, 23, 14, 5], [9, 9, 8, 8, 7, 7]])
ONE_HOT = torch.eye(3)


def _logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


def _close(found, expected, relative=1e-5):
    return bool((found - expected).norm() <= relative * expected.norm())


@pytest.fixture(scope="module")
def adapters(load_tiny, architecture, tmp_path_factory):
    """Three random adapters of different ranks: their folders, and PEFT's own logits."""
    root = tmp_path_factory.mktemp(f"adapters-{architecture}")
    outputs = {}
    for rank, name in enumerate(NAMES, start=2):
        torch.manual_seed(rank)
        lora = LoraConfig(r=rank, lora_alpha=rank + 3, target_modules="all-linear", init_lora_weights=False)
        peft_model = get_peft_model(load_tiny(architecture).model, lora).eval()
        outputs[name] = _logits(peft_model)
        peft_model.save_pretrained(root / name)
    return root, outputs


@pytest.fixture
def base(load_tiny, architecture):
    return load_tiny(architecture)


@pytest.fixture
def gated(base, adapters):
    modules = adapted_modules(base.model, "all-linear")
    return GatedModel(base.model, {name: read_task_vector(adapters[0] / name, modules).updates for name in NAMES})


def test_one_hot_weights_give_pefts_own_output(base, gated, adapters):
    for number, name in enumerate(NAMES):
        with gated.using(ONE_HOT[number].repeat(3, 1)):
            found = _logits(base.model)
        assert _close(found, adapters[1][name])
        assert not _close(found, adapters[1][NAMES[number - 1]], 1e-2)


def test_rows_of_a_batch_have_their_own_weights(base, gated):
    weights = torch.tensor([[0.2, 0.5, 0.3], [1.5, 0.0, -1.0], [0.0, 0.0, 0.0]])
    with gated.using(weights):
        together = _logits(base.model)
    for row in range(3):
        with gated.using(weights[row : row + 1]):
            alone = _logits(base.model, IDS[row : row + 1])
        assert _close(together[row : row + 1], alone)


def test_mixing_is_adding_the_weighted_updates(base, gated, adapters, load_tiny, architecture):
    weights = torch.tensor([0.2, 0.5, -0.3])
    with gated.using(weights.repeat(3, 1)):
        mixed = _logits(base.model)
    plain = load_tiny(architecture).model
    vectors = [read_task_vector(adapters[0] / name).updates for name in NAMES]

    def dense(name):
        return sum(weight * vector[name].dense() for weight, vector in zip(weights, vectors, strict=True))

    with folded(plain, {name: (lambda name=name: dense(name)) for name in vectors[0]}):
        assert _close(mixed, _logits(plain))


def test_zero_weights_are_the_base_to_the_bit(base, gated, load_tiny, architecture):
    expected = _logits(load_tiny(architecture).model)
    for weights in (None, torch.zeros(3, 3), ONE_HOT * torch.tensor([[0.0], [0.0], [1.0]])):
        with gated.using(weights):
            assert torch.equal(_logits(base.model)[:2], expected[:2])
    assert torch.equal(_logits(base.model), expected)


def test_gradients_reach_the_weights(base, gated):
    weights = torch.zeros(3, 3, requires_grad=True)
    with gated.using(weights):
        base.model(IDS).logits.logsumexp(dim=-1).mean().backward()
    assert (weights.grad != 0).all()


def test_repeated_rows_keep_their_prompts_weights(base, gated):
    with gated.using(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])):
        two, four = _logits(base.model, IDS[:2]), _logits(base.model, IDS[[0, 0, 1, 1]])
    assert _close(four[[0, 2]], two)


def test_weights_end_with_their_call_even_after_an_error(base, gated):
    before = _logits(base.model)
    with pytest.raises(RuntimeError), gated.using(torch.ones(3, 3)):
        raise RuntimeError
    assert torch.equal(_logits(base.model), before)


def test_remove_puts_the_original_layers_back(base, gated, load_tiny, architecture):
    gated.remove()
    assert model_sha256(base.model) == model_sha256(load_tiny(architecture).model)
    assert not any("gated" in type(module).__name__.lower() for module in base.model.modules())
