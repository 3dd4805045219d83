"""Jobs on two processes over gloo, as `accelerate launch` starts them: the same results as one process.

A step's gradients are the same sum whichever process makes its parts, but for the order in which float32 numbers are
added. Adam divides each gradient by its own size, so that the rounding of gradients near zero shows in the update: up
to some 1e-5 of its norm on these models. The tolerance is 1e-4.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alignx.config import RunConfig
from alignx.runs.files import read_json, read_jsonl
from alignx.stage1.task_vector import TaskVector, add, read_task_vector

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/two-cpu.yaml")]


def run(*words: str | Path) -> tuple[int, str]:
    """Run Python with these words; returns exit code and all output, and leaves no process behind."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=580)[0]
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return process.returncode, output


def relative_difference(one: TaskVector, other: TaskVector) -> float:
    return add([one, other], [1.0, -1.0]).norm() / one.norm()


@pytest.fixture
def config_file(tmp_path: Path, tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig]) -> Path:
    config = tiny_config(
        tiny_models["llama"],
        stage1={"micro_batch_tokens": 96, "checkpoint_steps": 2},
        evaluate={"joint": False},
        showcase={"prompt": "Why?", "max_new_tokens": 5},
    )
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.timeout(600)
def test_a_whole_run_on_two_processes_is_that_of_one(tmp_path, config_file):
    from alignx.cli import run as alignx

    code, output = run(*LAUNCH, "-m", "alignx", "run", config_file, "--out", tmp_path / "two")
    assert code == 0, output[-3000:]
    assert alignx(["run", str(config_file), "--out", str(tmp_path / "one")]) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("shared", "helpful", "harmless", "honest"):
        adapters = (read_task_vector(folder / "stage1" / name / "adapter") for folder in (one, two))
        assert relative_difference(*adapters) < TOLERANCE
    for name in ("latent", *(f"{axis}/signature" for axis in ("helpful", "harmless", "honest"))):
        path = f"stage1/{name}.safetensors"  # of the base, which no gradient has touched
        assert (one / path).read_bytes() == (two / path).read_bytes()
    losses = [read_json(folder / "eval/test/metrics.json")["loss"] for folder in (one, two)]
    assert losses[0].keys() == losses[1].keys()
    for method, by_axis in losses[0].items():
        assert losses[1][method] == pytest.approx(by_axis, rel=1e-4)
    answers = [read_jsonl(folder / "eval/showcase/answers.jsonl") for folder in (one, two)]
    assert [row["answer"] for row in answers[0]] == [row["answer"] for row in answers[1]]
    assert output.count("loading ") == 1 and output.count("report: ") == 1  # one process speaks
    assert not [path for path in two.rglob("*") if path.name.startswith(".")]


@pytest.mark.timeout(600)
def test_fsdp_on_two_processes_trains_and_goes_on_as_one_does(tmp_path, tiny_models):
    """Tied embeddings too: Gemma's head is its embedding."""
    script = ROOT / "tests/stage1/scripts/sharded.py"
    code, output = run(*TORCHRUN, script, tiny_models["gemma"], tmp_path / "two")
    assert code == 0, output[-3000:]
    assert "going on from step 4" in output
    code, output = run(script, tiny_models["gemma"], tmp_path / "one")
    assert code == 0, output[-3000:]
    one, two = (read_task_vector(tmp_path / name / "adapter") for name in ("one", "two"))
    assert relative_difference(one, two) < TOLERANCE


@pytest.mark.timeout(600)
def test_what_processes_share_and_agree_on(tiny_models):
    code, output = run(*TORCHRUN, ROOT / "tests/runs/scripts/two_processes.py", tiny_models["llama"])
    assert code == 0, output[-3000:]


@pytest.mark.timeout(600)
def test_what_the_main_process_cannot_write_ends_the_job_at_once_in_one_line(tmp_path, config_file):
    (tmp_path / "file").write_text("in the way")
    code, output = run(*LAUNCH, "-m", "alignx", "run", config_file, "--out", tmp_path / "file" / "run")
    assert code != 0
    assert [line for line in output.splitlines() if line.startswith("error: ")] != []
    assert output.count("\nerror: ") + output.startswith("error: ") == 1, output[-3000:]
