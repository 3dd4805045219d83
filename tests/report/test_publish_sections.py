"""Sections published beside the headline: figures, tables between markers, and a plain word where there is nothing."""

import json
import runpy
from pathlib import Path

import pytest

from alignx.errors import ArtifactError

SCRIPT = Path(__file__).parents[2] / "scripts" / "publish_sections.py"
TEXT = "Before.\n<!-- tiny-ablations: begin -->\nold\n<!-- tiny-ablations: end -->\nAfter.\n"


@pytest.fixture
def publish():
    return runpy.run_path(str(SCRIPT))["publish"]


@pytest.fixture
def ablated(make_run, metrics):
    """A run whose ablation of several seeds stands beside that of its own."""
    run = make_run(metrics)
    folder = run.evaluation_folder("ablate")
    folder.mkdir(parents=True)
    row = {
        "name": "alignx",
        "label": "AlignX",
        "group": "parts",
        "n": {"helpful": 4, "average": 4},
        "loss": {"helpful": 1.5, "average": 1.5},
        "loss_interval": [1.4, 1.6],
        "regret": {"average": 0.01, "interval": [0.0, 0.02]},
        "versus_alignx": None,
        "calibration": None,
        "foreign_auroc": None,
        "by_seed": [{"seed": seed, "loss": 1.5, "versus_alignx": 0.0} for seed in (0, 1)],
    }
    environment = {"accelerator": "", **metrics["environment"]}
    for name, seeds in (("metrics.json", [0]), ("pooled.json", [0, 1])):
        found = {"seeds": seeds, "axes": ["helpful"], "rows": [row], "environment": environment}
        (folder / name).write_text(json.dumps(found))
    return run


def test_the_part_between_the_markers_is_replaced_and_the_figures_are_kept(publish, ablated, tmp_path):
    (tmp_path / "RESULTS.md").write_text(TEXT)
    publish(ablated, "tiny", "ablations", tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "old" not in text
    assert "seeds 0, 1" in text and "1.500 (1.400 to 1.600)" in text
    assert json.loads((tmp_path / "results" / "tiny.ablations.json").read_text())["seeds"] == [0, 1]


def test_a_run_with_nothing_to_publish_says_which_command_makes_it(publish, make_run, metrics, tmp_path):
    (tmp_path / "RESULTS.md").write_text(TEXT)
    with pytest.raises(ArtifactError, match="nothing to publish as `dial`; run `alignx tradeoff RUN` first"):
        publish(make_run(metrics), "tiny", "dial", tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == TEXT and not (tmp_path / "results").exists()


def test_without_markers_nothing_is_written(publish, ablated, tmp_path):
    (tmp_path / "RESULTS.md").write_text("no markers\n")
    with pytest.raises(ValueError, match="needs the lines `<!-- tiny-ablations: begin -->`"):
        publish(ablated, "tiny", "ablations", tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == "no markers\n" and not (tmp_path / "results").exists()
