"""How far figures move with precision, batch size and seed."""

import json
import shutil
from pathlib import Path

import pytest

from alignx.cli import run as alignx
from alignx.errors import ConfigError
from alignx.evaluate.variability import largest_of_one, run_variability, spread, versus_spread
from alignx.report.page import write_report
from alignx.report.variability import variability_sentences
from alignx.runs import RunDirectory

Pair = tuple[RunDirectory, RunDirectory]


@pytest.fixture
def run(evaluated_runs: Pair, tmp_path: Path) -> RunDirectory:
    shutil.copytree(evaluated_runs[0].root, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def of_seed(run: RunDirectory, root: Path, seed: int) -> RunDirectory:
    """The same run under another seed's name."""
    shutil.copytree(run.root, root)
    other = RunDirectory(root)
    other.write_config(other.read_config().model_copy(update={"seed": seed}), other.read_environment())
    return other


def test_spread_is_largest_minus_smallest_in_per_cent_of_the_mean() -> None:
    tables = [
        {"base": {"average": 1.9}, "alignx": {"average": 1.9}},
        {"base": {"average": 2.1}, "alignx": {"average": 1.9}},
    ]
    assert spread(tables) == {"base": {"average": 10.0}, "alignx": {"average": 0.0}}
    assert versus_spread(tables)["base"] == pytest.approx(100 * (1 - 1.9 / 2.1))
    assert largest_of_one([{"base": [1.0, 2.0]}, {"base": [1.0, 2.2]}]) == pytest.approx(100 * 0.2 / 2.1)


def test_the_command_scores_at_every_setting_and_the_report_shows_it(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = of_seed(run, tmp_path / "other", 7)
    arguments = ["variability", str(run.root), "--limit", "3", "--beside", str(other.root)]
    assert alignx([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["precision"], one["batch_size"]) for one in found["settings"]] == [
        ("float32", 1),
        ("float32", 8),
        ("bf16", 1),
        ("bf16", 8),
    ]
    assert found["n"] == {"helpful": 3, "harmless": 3, "honest": 3}
    alone, together, half, _ = (one["loss"] for one in found["settings"])
    assert set(alone) == {"base", "expert-helpful", "expert-harmless", "expert-honest", "joint", "uniform", "alignx"}
    for method in alone:
        assert together[method]["average"] == pytest.approx(alone[method]["average"], rel=1e-4)
        assert half[method]["average"] != alone[method]["average"]  # bf16 was really used
        assert half[method]["average"] == pytest.approx(alone[method]["average"], rel=0.05)
    assert 0 < found["spread"]["alignx"]["average"] < 5
    assert found["seeds"]["seeds"] == [0, 7] and found["seeds"]["spread"]["alignx"]["average"] == 0
    assert found["seeds"]["also_differing"] == []
    assert alignx(arguments) == 0
    captured = capsys.readouterr()
    assert "variability: up to date" in captured.err
    assert "Published: figures may vary by 10% with hardware." in captured.out
    page, markdown = (path.read_text(encoding="utf-8") for path in write_report(run))
    for text in (page, markdown):
        assert "Loss on the average of the axes by precision and batch size" in text and "seed 7" in text


def test_one_seed_is_said_to_be_one(run: RunDirectory) -> None:
    found = run_variability(run.read_config(), run, limit=1)
    assert found["seeds"] is None
    assert any(sentence.startswith("Only one seed") for sentence in variability_sentences(found))


def test_the_same_seed_or_another_model_is_no_second_seed(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has seed 0 as .* has"):
        run_variability(run.read_config(), run, beside=run.root)
    other = of_seed(run, tmp_path / "other", 1)
    changed = other.read_config().model_copy(update={"model": "another"})
    other.write_config(changed, other.read_environment())
    with pytest.raises(ConfigError, match="another model"):
        run_variability(run.read_config(), run, beside=other.root)
    assert not run.evaluation_folder("variability").exists()
