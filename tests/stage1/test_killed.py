"""SIGKILL and Ctrl-C at any moment of Stage 1: the same command goes on, and ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "killed.py"
# Every so many changes of the file system one run is killed; 1 tries them all (minutes).
STRIDE = int(os.environ.get("ALIGNX_KILL_STRIDE", "7"))


def artifacts(run: Path) -> dict[str, bytes]:
    """Every file's bytes by name, but for how long training took and the checksum of that note.

    A killed run's temporary files do not count.
    """
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found[str(name)] = path.read_bytes()
            if path.name == "training.json":
                found[str(name)] = json.dumps({**json.loads(found[str(name)]), "seconds": 0}).encode()
            if path.parent.name == "steps":
                record = json.loads(found[str(name)])
                record["outputs"] = {
                    file: sums for file, sums in record["outputs"].items() if "training.json" not in file
                }
                found[str(name)] = json.dumps(record).encode()
    return found


def newest_checkpoint(run: Path) -> int:
    """Steps done at the newest whole checkpoint; 0 when there is none."""
    manifests = run.glob("stage1/helpful/checkpoints/step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in manifests), default=0)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.timeout(600)
def test_killed_at_any_change_of_the_file_system_and_run_again(tmp_path, tiny_models, tiny_data):
    words = [tmp_path, tiny_models["llama"], tiny_data / "alpaca.json", STRIDE]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=580, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    undisturbed = artifacts(tmp_path / "undisturbed")
    killed = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(killed) >= 5
    for run in killed:
        assert artifacts(run) == undisturbed, f"killed at change {run.name}"
    assert not list(tmp_path.glob("*/stage1/*/checkpoints"))
    assert "going on from step" in done.stderr.split("rerun of 1\n")[1]


@pytest.fixture
def command(tiny_models: dict[str, Path], tiny_data: Path) -> Callable[[Path], subprocess.Popen[str]]:
    """Starts `alignx stage1` for a run directory: 200 steps, a checkpoint every 20."""

    def start(out: Path) -> subprocess.Popen[str]:
        words = ["stage1", "--model", str(tiny_models["llama"]), "--dataset", f"alpaca={tiny_data / 'alpaca.json'}"]
        words += ["--splits", "16,8,8,8", "--epochs", "100", "--out", str(out)]
        return subprocess.Popen(
            [sys.executable, "-m", "alignx", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            # A shell that starts pytest in the background lets it ignore Ctrl-C, and its children with it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.mark.timeout(600)
def test_killed_or_interrupted_while_it_trains_and_run_again(tmp_path, command):
    undisturbed = command(tmp_path / "undisturbed")
    disturbed = tmp_path / "disturbed"
    for signalled, checkpoint in ((signal.SIGKILL, 20), (signal.SIGINT, 60)):
        process = command(disturbed)
        while newest_checkpoint(disturbed) < checkpoint and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signalled)
        errors = process.communicate(timeout=250)[1]
        assert not (disturbed / "stage1/helpful/adapter/adapter_model.safetensors").exists()
        if signalled == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130
            assert "interrupted; the same command goes on" in errors and "Traceback" not in errors
    process = command(disturbed)
    assert "going on from step" in process.communicate(timeout=250)[1]
    assert process.returncode == 0
    undisturbed.communicate(timeout=250)
    assert artifacts(disturbed) == artifacts(tmp_path / "undisturbed")
