"""`alignx stage1` by LoRA and by every weight."""

import json
from pathlib import Path

from alignx.cli import run


def _stage1(tiny_models: dict[str, Path], tiny_data: Path, out: Path, *options: str) -> int:
    words = ["stage1", "--model", str(tiny_models["llama"]), "--dataset", f"alpaca={tiny_data / 'alpaca.json'}"]
    return run([*words, "--splits", "8,4,4,4", "--out", str(out), *options])


def test_every_weight_learns_when_it_is_asked_for(tiny_models, tiny_data, tmp_path):
    assert _stage1(tiny_models, tiny_data, tmp_path / "run", "--method", "full", "--injection-rate", "0.5") == 0
    folder = tmp_path / "run/stage1/helpful"
    assert (folder / "task_vector/task_vector.safetensors.index.json").is_file()
    record = json.loads((folder / "training.json").read_text())
    assert (record["method"], record["injection_rate"]) == ("full", 0.5)


def test_a_method_there_is_not_is_one_line_that_names_the_two(tiny_models, tiny_data, tmp_path, capsys):
    assert _stage1(tiny_models, tiny_data, tmp_path / "run", "--method", "half") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "'lora' or 'full'" in error and "half" in error
    assert not (tmp_path / "run").exists()
