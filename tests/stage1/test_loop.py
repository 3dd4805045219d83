from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from alignx.cli import run
from alignx.config import Stage1Config
from alignx.data.batches import pad_batch
from alignx.data.example import Example
from alignx.data.template import TokenisedExample
from alignx.errors import ConfigError
from alignx.models.packed import pack, packed_attention
from alignx.stage1 import loop
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.sharded import is_sharded, step_seed
from alignx.stage1.task_vector import add, read_task_vector
from alignx.stage1.train import train_adapter

SETTINGS = Stage1Config(rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96)
EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * n}yes.") for n in range(12)]
JOB = TrainingJob("honest", EXAMPLES, {"honest": "Be honest."}, 0.5, 1e-2, 2, 0)
ROWS = [TokenisedExample([5, 6, 7], [8, 9]), TokenisedExample([10], [11, 12, 13, 14])]


@pytest.fixture
def base(load_tiny):
    return load_tiny("llama")


def test_the_loss_is_transformers_own_packed_or_padded(base):
    batch = pad_batch(ROWS, [0, 1], base.pad_token_id)
    labels = batch.input_ids.masked_fill(~batch.target_mask, -100)
    padded = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    expected = base.model(**padded, labels=labels).loss.item()
    loss_of = loop.SupervisedLoss(base.model, "float32")
    assert loss_of(padded, batch.target_mask, None, 1 / 6).item() == pytest.approx(expected, rel=1e-5)
    row = pack(ROWS)
    packed = {"input_ids": row.input_ids, "position_ids": row.position_ids}
    with packed_attention(base.model):
        assert loss_of(packed, row.target_mask, row.lengths, 1 / 6).item() == pytest.approx(expected, rel=1e-5)


def test_a_pass_without_examples_has_no_loss_and_a_gradient_of_zero(base):
    base.model.requires_grad_(True)
    empty = pack([TokenisedExample([base.pad_token_id], [])])
    inputs = {"input_ids": empty.input_ids, "position_ids": empty.position_ids}
    with packed_attention(base.model):
        loss = loop.SupervisedLoss(base.model, "float32")(inputs, empty.target_mask, empty.lengths, 1.0)
    loss.backward()
    assert loss.item() == 0
    gradients = [weight.grad for weight in base.model.get_decoder().layers.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_packing_changes_time_and_not_the_training(base, tmp_path, monkeypatch):
    train_adapter(base, JOB, SETTINGS, tmp_path / "packed" / "adapter", extra={})
    monkeypatch.setattr(loop, "can_pack", lambda model, max_tokens: False)
    train_adapter(base, JOB, SETTINGS, tmp_path / "padded" / "adapter", extra={})
    packed, padded = (read_task_vector(tmp_path / name / "adapter") for name in ("packed", "padded"))
    assert add([packed, padded], [1, -1]).norm() < 1e-4 * packed.norm()


def test_accumulation_and_precision_of_a_launch_config_do_not_change_the_training(base, tmp_path, monkeypatch):
    train_adapter(base, JOB, SETTINGS, tmp_path / "plain" / "adapter", extra={})
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train_adapter(base, JOB, SETTINGS, tmp_path / "launched" / "adapter", extra={})
    plain, launched = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("plain", "launched")
    )
    assert plain == launched


def test_a_loss_that_is_not_finite_stops_the_command_in_one_line_and_other_settings_work(
    tmp_path, tiny_models, tiny_data, capsys
):
    def command(out, rate):
        words = ["--model", str(tiny_models["llama"]), "--dataset", f"alpaca={tiny_data / 'alpaca.json'}"]
        return run(["stage1", *words, "--splits", "16,8,8,8", "--learning-rate", rate, "--out", str(tmp_path / out)])

    assert command("run", "1e30") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "`helpful`: non-finite loss at step 2" in lines[0] and "in the batch: “Write a line about" in lines[0]
    assert "lower `stage1.learning_rate`" in lines[0]
    assert command("run", "0.01") == command("fresh", "0.01") == 0
    adapters = (
        (tmp_path / out / "stage1/helpful/adapter/adapter_model.safetensors").read_bytes() for out in ("run", "fresh")
    )
    assert len(set(adapters)) == 1


def test_seeds_of_steps_and_processes_are_all_different_and_always_the_same():
    seeds = {step_seed(seed, step, process) for seed in (0, 1) for step in range(5) for process in range(3)}
    assert len(seeds) == 30
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


@pytest.mark.parametrize(
    ("kind", "says"),
    [(DistributedType.FSDP, "FSDP version 1 is not supported"), (DistributedType.XLA, "`?XLA`? is not supported")],
)
def test_ways_of_spreading_that_are_not_known_are_refused(kind, says):
    with pytest.raises(ConfigError, match=says):
        is_sharded(SimpleNamespace(distributed_type=kind, is_fsdp2=False))


def test_plain_processes_hold_whole_weights():
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        assert not is_sharded(SimpleNamespace(distributed_type=kind, is_fsdp2=False))
    assert is_sharded(SimpleNamespace(distributed_type=DistributedType.FSDP, is_fsdp2=True))
