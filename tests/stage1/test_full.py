import json

import pytest
import torch

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.errors import ArtifactError, ModelError, TrainingError
from alignx.models.fingerprint import model_sha256
from alignx.models.fold import folded
from alignx.models.layers import adapted_modules
from alignx.models.load import load_base
from alignx.models.named import named_weight
from alignx.runs.files import read_json
from alignx.stage1 import full
from alignx.stage1.dense_vector import DenseVector
from alignx.stage1.full import read_full_updates, train_full, trained_names, training_weights
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.task_vector import read_task_vector

SETTINGS = Stage1Config(method="full", rank=2, batch_size=4, precision="float32", max_tokens=96)
EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * n}yes.") for n in range(12)]


def _job(**changed) -> TrainingJob:
    fields = {"injection_rate": 0.5, "learning_rate": 1e-3, "epochs": 1, "seed": 0, **changed}
    return TrainingJob("honest", EXAMPLES, {"honest": "Be honest."}, **fields)


@pytest.fixture(params=["llama", "gemma"])
def base(load_tiny, request):
    """Llama's head has weights of its own; Gemma's is tied to the embedding."""
    return load_tiny(request.param)


def _train_and_keep(base, folder, monkeypatch, **changed) -> dict[str, torch.Tensor]:
    """Train, and return the float32 weights as they were when the optimiser was done."""
    kept = {}
    write = full.write_dense

    def keep(*arguments, **options):
        kept.update({name: weight.detach().clone() for name, weight in base.model.named_parameters()})
        write(*arguments, **options)

    monkeypatch.setattr(full, "write_dense", keep)
    train_full(base, _job(**changed), SETTINGS, folder / "adapter", extra={})
    return kept


def test_training_leaves_the_base_to_the_bit_and_bare(base, tmp_path):
    before, names = model_sha256(base.model), [name for name, _ in base.model.named_modules()]
    places = {name: parameter.data_ptr() for name, parameter in base.model.named_parameters()}
    train_full(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    assert model_sha256(base.model) == before
    assert [name for name, _ in base.model.named_modules()] == names
    assert {name: parameter.data_ptr() for name, parameter in base.model.named_parameters()} == places
    assert not base.model.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.model.parameters())


def test_every_parameter_learns_and_tied_weights_are_one(base, tmp_path):
    train_full(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    vector = DenseVector(tmp_path / "task_vector")
    tied = base.model.get_output_embeddings().weight is base.model.get_input_embeddings().weight
    assert ("lm_head" in vector.names()) is not tied
    assert len(vector.names()) == 4 * (7 + 2) + 2 + (not tied)
    assert all(vector.tensor(name).abs().sum() > 0 for name in vector.names())


def test_base_plus_task_vector_is_the_trained_model(base, tmp_path, monkeypatch):
    """To the bit where two float32 weights within a factor of two are subtracted (Sterbenz), else to an ulp."""
    trained = _train_and_keep(base, tmp_path, monkeypatch)
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    n_equal = n_all = 0
    with folded(base.model, read_full_updates(tmp_path / "task_vector", base.model)):
        for name, weight in base.model.named_parameters():
            close = (weight - trained[name]).abs() <= torch.maximum(before[name].abs(), trained[name].abs()) * 2.0**-23
            ratio = trained[name] / before[name]
            assert bool(close.all()), name
            assert torch.equal(weight[(ratio >= 0.5) & (ratio <= 2)], trained[name][(ratio >= 0.5) & (ratio <= 2)])
            n_equal, n_all = n_equal + int((weight == trained[name]).sum()), n_all + weight.numel()
    assert n_equal >= 0.99 * n_all


def test_a_bfloat16_base_learns_in_float32_and_is_put_back(tiny_models, tmp_path, monkeypatch):
    base = load_base(str(tiny_models["gemma"]), dtype="bfloat16")
    before = model_sha256(base.model)
    trained = _train_and_keep(base, tmp_path, monkeypatch, learning_rate=2e-5)
    assert model_sha256(base.model) == before and base.model.dtype == torch.bfloat16
    assert all(weight.dtype == torch.float32 for weight in trained.values())
    updates = read_full_updates(tmp_path / "task_vector", base.model)
    # Steps of 2e-5 vanish in most bfloat16 weights of size 0.2, and are kept here.
    assert all((updates[name]() != 0).float().mean() > 0.9 for name in adapted_modules(base.model, "all-linear"))
    n_equal = n_all = 0
    with folded(base.model, updates):
        for name, weight in base.model.named_parameters():
            rounded = trained[name].to(torch.bfloat16)
            n_equal, n_all = n_equal + int((weight == rounded).sum()), n_all + weight.numel()
            torch.testing.assert_close(weight, rounded, rtol=2.0**-7, atol=0)
    assert n_equal >= 0.9999 * n_all


def test_training_lowers_the_loss_and_says_what_it_did(base, tmp_path):
    summary = train_full(base, _job(epochs=4), SETTINGS, tmp_path / "adapter", extra={"on_top_of": ""})
    assert summary.steps == len(summary.losses) == 12
    assert sum(summary.losses[-3:]) < sum(summary.losses[:3])
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["losses"], record["method"], record["examples"]) == (summary.losses, "full", 12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "svd.json", "task_vector", "training.json"]


def test_factors_of_full_rank_are_the_linear_updates(base, tmp_path):
    settings = SETTINGS.model_copy(update={"expert_rank": 32})
    train_full(base, _job(), settings, tmp_path / "adapter", extra={})
    modules = adapted_modules(base.model, "all-linear")
    vector, factors = DenseVector(tmp_path / "task_vector"), read_task_vector(tmp_path / "adapter", modules)
    for name in modules:
        dense = vector.tensor(name)
        assert (factors.updates[name].dense() - dense).norm() <= 1e-5 * dense.norm()


def test_the_table_of_dropped_norms_covers_every_parameter(base, tmp_path, capsys):
    train_full(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    table, vector = read_json(tmp_path / "svd.json"), DenseVector(tmp_path / "task_vector")
    assert sorted([*table["layers"], *table["without_factors"]]) == sorted(vector.names())
    assert "honest: factors of rank 2 drop" in capsys.readouterr().err
    assert 0 < table["dropped_share"]["whole_task_vector"] < 1


def test_named_modules_are_trained_alone(base, tmp_path):
    settings = SETTINGS.model_copy(update={"target_modules": "q_proj, v_proj"})
    train_full(base, _job(), settings, tmp_path / "adapter", extra={})
    names = DenseVector(tmp_path / "task_vector").names()
    assert len(names) == 8 and {name.rsplit(".", 1)[-1] for name in names} == {"q_proj", "v_proj"}
    with pytest.raises(ModelError, match="`query` matches no linear layer"):
        trained_names(base.model, "query")


def test_a_rate_that_blows_up_stops_and_leaves_nothing(base, tmp_path):
    before = model_sha256(base.model)
    with pytest.raises(TrainingError, match="`honest`: "):
        train_full(base, _job(learning_rate=1e30, epochs=2), SETTINGS, tmp_path / "adapter", extra={})
    assert list(tmp_path.iterdir()) == []
    assert model_sha256(base.model) == before


def test_a_seed_fixes_the_task_vector_to_the_bit(base, tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        train_full(base, _job(seed=seed), SETTINGS, tmp_path / name / "adapter", extra={})
    one, again, other = (DenseVector(tmp_path / name / "task_vector") for name in ("one", "again", "other"))
    assert all(torch.equal(one.tensor(name), again.tensor(name)) for name in one.names())
    assert not all(torch.equal(one.tensor(name), other.tensor(name)) for name in one.names())


def test_a_training_that_was_killed_goes_on_to_the_same_bits(base, tmp_path):
    settings = SETTINGS.model_copy(update={"checkpoint_steps": 2})
    train_full(base, _job(epochs=2), settings, tmp_path / "whole" / "adapter", extra={})
    before = model_sha256(base.model)
    folder = tmp_path / "killed" / "adapter"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full, "write_dense", killed)
        with pytest.raises(KeyboardInterrupt):
            train_full(base, _job(epochs=2), settings, folder, extra={})
    assert model_sha256(base.model) == before
    train_full(base, _job(epochs=2), settings, folder, extra={})
    whole, resumed = (DenseVector(tmp_path / name / "task_vector") for name in ("whole", "killed"))
    assert all(torch.equal(whole.tensor(name), resumed.tensor(name)) for name in whole.names())


def test_weights_are_put_back_after_an_error_inside(base):
    before = model_sha256(base.model)
    with pytest.raises(RuntimeError, match="inside"), training_weights(base.model, ["model.norm.weight"]) as (some, _):
        some["model.norm.weight"].data.add_(1)
        raise RuntimeError("inside")
    assert model_sha256(base.model) == before


def test_a_task_vector_of_another_base_is_refused(base, load_tiny, tmp_path):
    train_full(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    with pytest.raises(ArtifactError, match="made for another base: `.*`.*train the expert again"):
        read_full_updates(tmp_path / "task_vector", load_tiny("deepseek").model)


def test_sharded_weights_are_refused_with_a_way_out(base, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match="does not run under FSDP.*`stage1.method: lora`"):
        train_full(base, _job(), SETTINGS, tmp_path / "adapter", extra={})


def test_a_parameter_is_found_by_its_own_name_or_by_its_modules(base):
    by_module = named_weight(base.model, "model.layers.0.mlp.up_proj")
    assert by_module is named_weight(base.model, "model.layers.0.mlp.up_proj.weight")
