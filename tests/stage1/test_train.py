import json

import pytest
import torch

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.errors import ModelError, TrainingError
from alignx.models.fingerprint import model_sha256
from alignx.models.layers import adapted_modules
from alignx.runs.files import read_tensors
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.task_vector import read_task_vector
from alignx.stage1.train import train_adapter

SETTINGS = Stage1Config(rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96)
EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * n}yes.") for n in range(12)]


def _job(**changed) -> TrainingJob:
    fields = {"injection_rate": 0.5, "learning_rate": 1e-2, "epochs": 1, "seed": 0, **changed}
    return TrainingJob("honest", EXAMPLES, {"honest": "Be honest."}, **fields)


@pytest.fixture
def base(load_tiny):
    return load_tiny("llama")


def test_training_leaves_the_base_to_the_bit_and_bare(base, tmp_path):
    before, names = model_sha256(base.model), [name for name, _ in base.model.named_modules()]
    train_adapter(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    assert model_sha256(base.model) == before
    assert [name for name, _ in base.model.named_modules()] == names
    assert not base.model.training and not any(parameter.requires_grad for parameter in base.model.parameters())


def test_training_lowers_the_loss_and_says_what_it_did(base, tmp_path):
    summary = train_adapter(base, _job(epochs=6), SETTINGS, tmp_path / "adapter", extra={"on_top_of": "shared"})
    assert summary.steps == len(summary.losses) == 18
    assert sum(summary.losses[-3:]) < sum(summary.losses[:3])
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["losses"], record["on_top_of"], record["examples"]) == (summary.losses, "shared", 12)


def test_the_adapter_is_pefts_and_covers_every_layer(base, tmp_path):
    train_adapter(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    names = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    vector = read_task_vector(tmp_path / "adapter", adapted_modules(base.model, "all-linear"))
    assert len(vector.updates) == 7 * 4 and vector.norm() > 0


def test_an_adapter_names_no_path_of_this_machine(base, tmp_path):
    train_adapter(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "llama"


def test_a_seed_fixes_the_adapter_to_the_bit(base, tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        train_adapter(base, _job(seed=seed), SETTINGS, tmp_path / name / "adapter", extra={})
    one, again, other = (
        read_tensors(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "again", "other")
    )
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_only_the_named_modules_are_adapted(base, tmp_path):
    settings = SETTINGS.model_copy(update={"target_modules": "q_proj, v_proj"})
    train_adapter(base, _job(), settings, tmp_path / "adapter", extra={})
    updates = read_task_vector(tmp_path / "adapter", adapted_modules(base.model, "q_proj,v_proj")).updates
    assert {name.rsplit(".", 1)[-1] for name in updates} == {"q_proj", "v_proj"} and len(updates) == 8


def test_modules_that_match_nothing_are_told_with_those_there_are(base, tmp_path):
    settings = SETTINGS.model_copy(update={"target_modules": "query"})
    with pytest.raises(ModelError, match="`query` matches no linear layer.*down_proj.*q_proj"):
        train_adapter(base, _job(), settings, tmp_path / "adapter", extra={})
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_blows_up_stops_and_leaves_no_adapter(base, tmp_path):
    before = model_sha256(base.model)
    with pytest.raises(TrainingError, match="`honest`: non-finite loss at step"):
        train_adapter(base, _job(learning_rate=1e30, epochs=2), SETTINGS, tmp_path / "adapter", extra={})
    assert list(tmp_path.iterdir()) == []
    assert model_sha256(base.model) == before


def test_weights_that_are_not_finite_stop_the_first_step(base, tmp_path):
    base.model.get_input_embeddings().weight.data.fill_(float("inf"))
    with pytest.raises(TrainingError, match="non-finite loss at step 1"):
        train_adapter(base, _job(), SETTINGS, tmp_path / "adapter", extra={})
    assert list(tmp_path.iterdir()) == []


def test_a_last_step_that_blows_up_leaves_no_adapter(base, tmp_path):
    """No loss follows the last update, so what it did must be looked at otherwise."""
    settings = SETTINGS.model_copy(update={"batch_size": 6})
    with pytest.raises(TrainingError):
        train_adapter(base, _job(learning_rate=3e38), settings, tmp_path / "adapter", extra={})
    assert list(tmp_path.iterdir()) == []


def test_a_single_step_learns_something(base, tmp_path):
    train_adapter(base, _job(), SETTINGS.model_copy(update={"batch_size": 12}), tmp_path / "adapter", extra={})
    assert read_task_vector(tmp_path / "adapter").norm() > 0


@pytest.mark.parametrize(("batch_size", "epochs"), [(4, 1), (8, 2)])
def test_micro_batches_change_memory_and_not_the_training(base, tmp_path, batch_size, epochs):
    summaries = [
        train_adapter(
            base,
            _job(epochs=epochs, injection_rate=0.0),
            SETTINGS.model_copy(update={"batch_size": batch_size, "micro_batch_tokens": tokens}),
            tmp_path / str(tokens) / "adapter",
            extra={},
        )
        for tokens in (1024, 64)
    ]
    assert summaries[0].steps == summaries[1].steps
    assert summaries[0].losses == pytest.approx(summaries[1].losses, abs=1e-3)
