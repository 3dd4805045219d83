import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists
from torch import nn

from alignx.errors import ArtifactError
from alignx.models.layers import adapted_modules
from alignx.models.low_rank import LowRankUpdate
from alignx.runs.files import read_tensors, write_tensors
from alignx.stage1.task_vector import TaskVector, add, dare, read_task_vector, ties

factors = floats(-4, 4)
seeds = integers(0, 2**16)


def _vector(seed: int, rank: int = 2) -> TaskVector:
    generator = torch.Generator().manual_seed(seed)
    return TaskVector(
        {
            name: LowRankUpdate(
                torch.randn(rank, width, generator=generator), torch.randn(6, rank, generator=generator), 1.5
            )
            for name, width in (("one", 5), ("two", 7))
        }
    )


@given(seed=seeds, weights=lists(factors, min_size=1, max_size=4))
@settings(max_examples=30)
def test_addition_is_that_of_the_dense_updates(seed, weights):
    vectors = [_vector(seed + number, rank=number + 1) for number in range(len(weights))]
    for name, update in add(vectors, weights).updates.items():
        expected = sum(weight * vector.updates[name].dense() for weight, vector in zip(weights, vectors, strict=True))
        torch.testing.assert_close(update.dense(), expected, rtol=1e-4, atol=1e-4)


@given(seed=seeds, factor=factors)
@settings(max_examples=30)
def test_scaling_scales_the_dense_update(seed, factor):
    vector = _vector(seed)
    for name, update in vector.scaled(factor).updates.items():
        torch.testing.assert_close(update.dense(), factor * vector.updates[name].dense())


@given(seed=seeds)
@settings(max_examples=20)
def test_a_vector_and_its_negation_cancel(seed):
    vector = _vector(seed)
    nothing = add([vector, vector.scaled(-1)], [1, 1])
    assert all(update.dense().abs().max() < 1e-5 for update in nothing.updates.values())


@given(seed=seeds)
@settings(max_examples=20)
def test_inner_products_are_those_of_the_dense_updates(seed):
    one, other = _vector(seed), _vector(seed + 1, rank=3)
    dense = sum(float((one.updates[n].dense() * other.updates[n].dense()).sum()) for n in one.updates)
    assert one.inner(other) == pytest.approx(dense, rel=1e-4, abs=1e-4)
    assert one.norm() ** 2 == pytest.approx(one.inner(one))
    assert one.cosine(one.scaled(-2)) == pytest.approx(-1)
    assert one.cosine(one.scaled(0)) == 0


@pytest.mark.parametrize(
    ("vectors", "weights"),
    [([], []), ([_vector(0)], [1, 2]), ([_vector(0), TaskVector({"one": _vector(0).updates["one"]})], [1, 1])],
)
def test_vectors_that_cannot_be_added_are_refused(vectors, weights):
    with pytest.raises(ValueError, match="task vectors"):
        add(vectors, weights)


def test_ties_follows_an_example_worked_by_hand():
    # Kept (half of four entries): [4, -3, 0, 0], [-1, 0, 2, 0], [0, -5, 6, 0]; elected signs: +, -, +, none.
    updates = [
        torch.tensor([[4.0, -3.0], [1.0, 0.5]]),
        torch.tensor([[-1.0, 0.1], [2.0, -0.2]]),
        torch.tensor([[0.3, -5.0], [6.0, 0.4]]),
    ]
    torch.testing.assert_close(ties(updates, density=0.5), torch.tensor([[4.0, -4.0], [4.0, 0.0]]))


def test_ties_weights_count_in_the_sign_and_in_the_mean():
    updates = [torch.tensor([[2.0, 1.0]]), torch.tensor([[-1.0, 4.0]])]
    merged = ties(updates, density=1.0, weights=[1.0, 3.0])
    torch.testing.assert_close(merged, torch.tensor([[-1.0, (1 + 12) / 4]]))


def test_ties_of_one_update_at_full_density_is_that_update():
    update = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ties([update], density=1.0), update)


def test_dare_is_seeded():
    updates = [torch.ones(20, 20), torch.ones(20, 20)]
    one, again, other = (
        dare(updates, [1, 1], density=0.5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_dare_is_unbiased(density):
    updates = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])]
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([dare(updates, [0.7, -1.3], density=density, generator=generator) for _ in range(2000)])
    error = (draws.mean(dim=0) - (0.7 * updates[0] - 1.3 * updates[1])).abs()
    assert (error <= 3 * draws.std(dim=0) / 2000**0.5 + 1e-6).all()


@pytest.mark.parametrize("density", [0.0, 1.1, -1])
def test_a_density_outside_its_range_is_refused(density):
    with pytest.raises(ValueError, match="density"):
        ties([torch.ones(2, 2)], density=density)
    with pytest.raises(ValueError, match="density"):
        dare([torch.ones(2, 2)], [1], density=density, generator=torch.Generator())


_SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}
_KEY = "base_model.model.layers.0.q.lora_{}.weight"


@pytest.fixture
def adapter(tmp_path):
    """A folder with a plain LoRA adapter of one 4 x 3 layer, `layers.0.q`."""
    (tmp_path / "adapter_config.json").write_text(json.dumps(_SETTINGS))
    tensors = {_KEY.format("A"): torch.randn(2, 3), _KEY.format("B"): torch.randn(4, 2)}
    write_tensors(tmp_path / "adapter_model.safetensors", tensors)
    return tmp_path


def _rewrite(adapter, **changed):
    tensors = read_tensors(adapter / "adapter_model.safetensors")
    tensors = {**tensors, **{_KEY.format(factor): tensor for factor, tensor in changed.items()}}
    write_tensors(adapter / "adapter_model.safetensors", {k: v for k, v in tensors.items() if v is not None})


def test_an_adapter_is_read_with_its_scale(adapter):
    (update,) = read_task_vector(adapter, {"layers.0.q": nn.Linear(3, 4)}).updates.values()
    assert update.scale == 3.0
    tensors = read_tensors(adapter / "adapter_model.safetensors")
    torch.testing.assert_close(update.dense(), 3 * tensors[_KEY.format("B")] @ tensors[_KEY.format("A")])


def test_a_rank_stabilised_adapter_is_read_with_its_own_scale(adapter):
    (adapter / "adapter_config.json").write_text(json.dumps({**_SETTINGS, "use_rslora": True}))
    assert read_task_vector(adapter).updates["layers.0.q"].scale == pytest.approx(6 / 2**0.5)


@pytest.mark.parametrize(
    "modules",
    [
        {"layers.1.q": nn.Linear(3, 4)},
        {"layers.0.q": nn.Linear(3, 5)},
        {"layers.0.q": nn.Linear(2, 4)},
        {"layers.0.q": nn.Linear(3, 4), "layers.0.k": nn.Linear(3, 4)},
    ],
)
def test_an_adapter_of_another_base_is_refused(adapter, modules):
    with pytest.raises(ArtifactError, match="retrain the adapter on this base"):
        read_task_vector(adapter, modules)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"B": None}, "has no lora_B"),
        ({"A": None}, "not LoRA factors"),
        ({"magnitude_vector": torch.ones(4)}, "not LoRA factors"),
        ({"A": torch.full((2, 3), float("nan"))}, "holds NaN or infinity"),
        ({"B": torch.full((4, 2), float("inf"))}, "holds NaN or infinity"),
    ],
)
def test_damaged_factors_are_refused(adapter, changed, fault):
    _rewrite(adapter, **changed)
    with pytest.raises(ArtifactError, match=fault):
        read_task_vector(adapter)


@pytest.mark.parametrize(
    "changed",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"rank_pattern": {"q": 4}},
        {"alpha_pattern": {"q": 60}},
        {"r": None},
        {"r": 0},
        {"r": 1.5},
        {"r": True},
        {"r": 10**400},
        {"lora_alpha": "many"},
        {"lora_alpha": float("nan")},
        {"task_type": "SEQ_CLS"},
        {"task_type": ["CAUSAL_LM"]},
        {"init_lora_weights": "pissa_niter_16"},
        {"init_lora_weights": {"a": 1}},
    ],
)
def test_settings_of_another_kind_are_refused(adapter, changed):
    settings = {key: value for key, value in {**_SETTINGS, **changed}.items() if value is not None}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ArtifactError, match="adapter_config.json: "):
        read_task_vector(adapter)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [1]),
        ("alora_invocation_tokens", [1]),
        ("target_parameters", ["experts"]),
        ("invented_by_a_later_peft", 0.5),
    ],
)
def test_a_key_that_changes_the_meaning_is_named(adapter, key, value):
    (adapter / "adapter_config.json").write_text(json.dumps({**_SETTINGS, key: value}))
    with pytest.raises(ArtifactError, match=f"`{key}` is .* which changes what the factors mean"):
        read_task_vector(adapter)


@pytest.mark.parametrize("value", [None, False, [], {}, "", "none"])
def test_an_unknown_key_that_says_nothing_is_passed_over(adapter, value):
    (adapter / "adapter_config.json").write_text(json.dumps({**_SETTINGS, "invented_by_a_later_peft": value}))
    assert read_task_vector(adapter).updates["layers.0.q"].scale == 3.0


def test_what_peft_itself_writes_is_read(adapter):
    from peft import LoraConfig

    LoraConfig(r=2, lora_alpha=6, target_modules=["q"], task_type="CAUSAL_LM").save_pretrained(adapter)
    assert read_task_vector(adapter).updates["layers.0.q"].scale == 3.0


@pytest.mark.parametrize("content", ["[]", "3", '"LORA"', "null"])
def test_settings_that_are_no_object_are_refused(adapter, content):
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(ArtifactError, match="expected an object"):
        read_task_vector(adapter)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_factors_that_are_no_floating_point_numbers_are_refused(adapter, dtype):
    _rewrite(adapter, A=torch.ones(2, 3, dtype=dtype))
    with pytest.raises(ArtifactError, match="not two matrices of floating-point numbers"):
        read_task_vector(adapter)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_factors_of_any_floating_point_dtype_are_read(adapter, dtype):
    _rewrite(adapter, A=torch.ones(2, 3, dtype=dtype), B=torch.ones(4, 2, dtype=dtype))
    assert read_task_vector(adapter).updates["layers.0.q"].dense().dtype == torch.float32


def test_factors_of_another_number_of_dimensions_are_refused(adapter):
    _rewrite(adapter, A=torch.ones(2))
    with pytest.raises(ArtifactError, match="not two matrices"):
        read_task_vector(adapter)


def test_factors_of_another_rank_than_the_settings_say_are_refused(adapter):
    _rewrite(adapter, A=torch.randn(3, 3), B=torch.randn(4, 3))
    with pytest.raises(ArtifactError):
        read_task_vector(adapter)


def test_a_pickle_is_never_opened(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({_KEY.format("A"): torch.randn(2, 3)}, adapter / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="adapter_model.bin: is a pickle.* save it with `save_pretrained`"):
        read_task_vector(adapter)


def test_addition_is_pefts_exact_merge(load_tiny, finished_run):
    from peft import PeftModel

    config, run = finished_run("llama")
    base = load_tiny("llama")
    weights = [0.7, -0.4, 1.2]
    axes = list(config.axes)
    modules = adapted_modules(base.model, config.stage1.target_modules)
    ours = add([read_task_vector(run.adapter_folder(axis), modules) for axis in axes], weights)
    peft_model = PeftModel.from_pretrained(base.model, run.adapter_folder(axes[0]), adapter_name=axes[0])
    for axis in axes[1:]:
        peft_model.load_adapter(run.adapter_folder(axis), adapter_name=axis)
    peft_model.add_weighted_adapter(axes, weights, "merged", combination_type="cat")
    for name, update in ours.updates.items():
        theirs = peft_model.base_model.model.get_submodule(name).get_delta_weight("merged")
        torch.testing.assert_close(update.dense(), theirs, rtol=1e-5, atol=1e-5)
