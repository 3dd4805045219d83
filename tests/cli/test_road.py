"""The commands one after another, as a user types them, on a tiny model."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alignx.cli import run
from alignx.config import RunConfig
from alignx.runs.files import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
METHODS = ["base", "expert-helpful", "expert-harmless", "expert-honest", "joint", "uniform", "alignx"]
MERGES = {"task-arithmetic", "ties", "dare"}


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig]
) -> Path:
    """A run directory that `alignx run` has finished."""
    folder = tmp_path_factory.mktemp("road")
    config = tiny_config(
        tiny_models["llama"],
        seed=7,
        stage2={"merges": ["ties", "dare", "task-arithmetic"]},
        evaluate={"ablations": True},
        showcase={"prompt": "Why?", "max_new_tokens": 5},
    )
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    assert run(["run", str(path), "--seed", "0", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_every_artifact_of_the_layout_is_there(done: Path) -> None:
    files = [
        "run.yaml",
        "base.json",
        "splits.json",
        "stage1/helpful/adapter/adapter_model.safetensors",
        "stage1/helpful/task_matrix.safetensors",
        "stage1/helpful/signature.safetensors",
        "stage1/latent.safetensors",
        "stage1/parameter_matrix.safetensors",
        "stage2/mocae.safetensors",
        "stage2/mocae.json",
        "eval/test/judgments.jsonl",
        "eval/test/prompts.jsonl",
        "eval/test/metrics.json",
        "eval/showcase/answers.jsonl",
        "report.html",
        "report.md",
    ]
    assert [name for name in files if not (done / name).is_file()] == []
    assert not [path for path in done.rglob("*") if path.name.startswith((".", "tmp"))]


def test_the_figures_cover_every_method_and_add_up(done: Path) -> None:
    metrics = json.loads((done / "eval/test/metrics.json").read_text())
    assert list(metrics["loss"])[: len(METHODS)] == METHODS
    others = set(metrics["loss"]) - set(METHODS)
    assert others >= MERGES | {"ablation-plain-router"}
    assert all(name.startswith(("ablation-", "oracle-")) for name in others - MERGES)
    for method, by_axis in metrics["loss"].items():
        axes = [by_axis[axis] for axis in ("helpful", "harmless", "honest")]
        assert by_axis["average"] == pytest.approx(sum(axes) / 3)
        low, high = metrics["loss_interval"][method]["average"]
        assert low <= by_axis["average"] <= high
    assert metrics["n"] == {"helpful": 8, "harmless": 8, "honest": 8, "average": 24}


def test_rows_give_the_figures_again(done: Path) -> None:
    metrics = json.loads((done / "eval/test/metrics.json").read_text())
    rows = read_jsonl(done / "eval/test/prompts.jsonl")
    for axis in ("helpful", "harmless", "honest"):
        losses = [row["loss"]["alignx"] for row in rows if row["axis"] == axis]
        assert sum(losses) / len(losses) == pytest.approx(metrics["loss"]["alignx"][axis])
    for row in rows:
        assert {"seed", "prompt_hash", "axis", "loss", "axis_probs", "best_probs", "pi"} <= row.keys()
        assert sum(row["pi"].values()) == pytest.approx(1)


def test_dare_is_scored_with_three_seeds_and_its_row_is_their_mean(done: Path) -> None:
    metrics = json.loads((done / "eval/test/metrics.json").read_text())
    rows = read_jsonl(done / "eval/test/prompts.jsonl")
    assert json.loads((done / "stage2/dare.json").read_text())["seeds"] == [0, 1, 2]
    for row in rows:
        assert list(row["loss_by_repeat"]) == ["dare"] and len(set(row["loss_by_repeat"]["dare"])) == 3
        assert row["loss"]["dare"] == pytest.approx(sum(row["loss_by_repeat"]["dare"]) / 3)
    assert sum(metrics["repeats"]["dare"]) / 3 == pytest.approx(metrics["loss"]["dare"]["average"])
    note = next(line for line in (done / "report.md").read_text().splitlines() if "DARE: the mean of 3 seeds" in line)
    assert all(f"{loss:.3f}" in note for loss in metrics["repeats"]["dare"])


def test_the_command_lines_seed_wins_over_the_configs(done: Path) -> None:
    assert yaml.safe_load((done / "run.yaml").read_text())["config"]["seed"] == 0
    assert {row["seed"] for row in read_jsonl(done / "eval/test/prompts.jsonl")} == {0}


def test_test_prompts_taught_nothing(done: Path) -> None:
    splits = json.loads((done / "splits.json").read_text())["axes"]
    tested = {prompt for axis in splits.values() for prompt in axis["splits"]["test"]}
    taught = {
        prompt
        for axis in splits.values()
        for split in ("train", "mix", "calibration")
        for prompt in axis["splits"][split]
    }
    assert not tested & taught
    assert {row["prompt_hash"] for row in read_jsonl(done / "eval/test/prompts.jsonl")} == tested


def test_a_rerun_does_nothing_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")}
    assert run(["run", str(done.parent / "tiny.yaml"), "--seed", "0", "--out", str(done)]) == 0
    errors = capsys.readouterr().err
    assert "train " not in errors
    assert errors.count("up to date") >= 15
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")} == before


def test_generate_prints_answer_and_weights(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "generate",
        str(done),
        "Why?",
        "--weight",
        "harmless=2",
        "--floor",
        "honest=0.3",
        "--max-new-tokens",
        "4",
    ]
    assert run(arguments) == 0
    assert "weights: helpful 0." in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["pi"]["honest"] >= 0.3
    assert run([*arguments, "--stream"]) == 0
    assert capsys.readouterr().out.startswith(answer["answer"])
    assert run([*arguments, "--stream", "--json"]) == 2
    assert "--stream and --json" in capsys.readouterr().err


def test_other_test_data_leaves_trained_prompts_out(
    done: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(done), "--test-data", str(tiny_data)]) == 0
    captured = capsys.readouterr()
    assert "helpful: 8 prompts scored, 32 left out because trained on" in captured.out
    folder = next(path for path in (done / "eval").iterdir() if path.name not in {"test", "showcase"})
    metrics = json.loads((folder / "metrics.json").read_text())
    own = json.loads((done / "eval/test/metrics.json").read_text())
    # The rows that are left are the run's own test rows, so the figures are the same.
    assert metrics["loss"]["alignx"] == pytest.approx(own["loss"]["alignx"])


def _flip_last_digit(path: Path) -> bytes:
    """Change a figure; the file stays well-formed. Returns what it held before."""
    before = path.read_bytes()
    at = next(n for n in range(len(before) - 1, -1, -1) if chr(before[n]).isdigit())
    path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
    return before


@pytest.mark.parametrize("name", ["metrics.json", "prompts.jsonl"])
def test_figures_that_have_changed_since_are_not_reported(
    done: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = done / "eval" / "test" / name
    before = _flip_last_digit(path)
    try:
        assert run(["report", str(done)]) == 2
        assert f"{name}: is not what was written (its checksum differs)" in capsys.readouterr().err
    finally:
        path.write_bytes(before)


def test_judgements_that_have_changed_since_are_made_anew(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = done / "eval" / "test" / "judgments.jsonl"
    before = _flip_last_digit(path)
    assert run(["evaluate", str(done)]) == 0
    assert "judgments.jsonl: is not what was written (its checksum differs); judging again" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("method", ["uniform", "negate", "ties"])
def test_stage2_makes_merges(done: Path, method: str) -> None:
    assert run(["stage2", str(done), "--method", method]) == 0
    settings = json.loads((done / "stage2" / f"{method}.json").read_text())
    assert settings["method"] == method
    assert settings["coefficient"] == (-1 / 3 if method == "negate" else pytest.approx(settings["coefficient"]))


def script(name: str, *arguments: str) -> int:
    """Run one of the scripts at the root as `python NAME ...` does; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return int(stopped.value.code or 0)


def test_axes_one_by_one_through_the_published_scripts(
    tmp_path: Path, tiny_models: dict[str, Path], tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    files = {"Stage1.py": "alpaca=alpaca.json", "Task_Vector.py": "truthfulqa=truthfulqa.csv"}
    for name, file in files.items():
        dataset, _, path = file.partition("=")
        data = ["--dataset", f"{dataset}={tiny_data / path}", "--splits", "16,8,8,8"]
        assert script(name, "--model", str(tiny_models["mistral"]), *data, "--out", out) == 0
    assert sorted(path.name for path in (tmp_path / "run/stage1").iterdir()) == ["helpful", "honest"]
    assert script("Stage2.py", out, "--method", "uniform") == 0
    capsys.readouterr()
    assert script("Evaluate.py", out) == 2
    assert "no mixture yet; run `alignx stage2" in capsys.readouterr().err
    assert script("Stage1.py", "--model", str(tiny_models["llama"]), *data, "--out", out) == 2
    assert "use that model or another --out" in capsys.readouterr().err


def test_stage1_keeps_large_artifacts_on_request_without_training_again(
    tmp_path: Path, tiny_models: dict[str, Path], tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["stage1", "--model", str(tiny_models["llama"]), "--out", str(tmp_path / "run")]
    arguments += ["--dataset", f"alpaca={tiny_data / 'alpaca.json'}", "--splits", "16,8,8,8"]
    assert run(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "run/stage1/helpful").iterdir()) == ["adapter", "training.json"]
    assert run([*arguments, "--dense", "--copy-base", "--merged"]) == 0
    errors = capsys.readouterr().err
    assert "expert helpful: up to date" in errors
    assert "merged model helpful: kept; read back, largest logit difference 0" in errors
    for folder in ("base", "stage1/helpful/merged", "stage1/helpful/task_vector"):
        assert list((tmp_path / "run" / folder).glob("*.safetensors")), folder
    # The run remembers what it keeps: the same words without the flags find everything up to date.
    assert run(arguments) == 0
    assert capsys.readouterr().err.count("up to date") == 4
