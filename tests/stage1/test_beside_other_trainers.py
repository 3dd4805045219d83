"""A process may hold another trainer, whose Accelerate settings are global."""

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.train import train_adapter

SETTINGS = Stage1Config(rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96)


def test_training_leaves_another_trainers_accelerate_as_it_was(load_tiny, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        theirs = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
        examples = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}.") for n in range(4)]
        job = TrainingJob("honest", examples, {}, 0.0, 1e-2, 1, 0)
        summary = train_adapter(load_tiny("llama"), job, SETTINGS, tmp_path / "adapter", extra={})
        assert summary.steps == 1
        assert theirs.mixed_precision == "bf16"
        assert theirs.gradient_accumulation_steps == 3
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
