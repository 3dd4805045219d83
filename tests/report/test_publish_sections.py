"""Sections published beside the headline: figures, tables between markers, and a plain word where there is nothing."""

import json
import runpy
from pathlib import Path

import pytest

from alignx.errors import ArtifactError, ConfigError
from alignx.runs.files import write_json

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
    with pytest.raises(ArtifactError, match="nothing to publish as `dial`; run `alignx tradeoff RUN ...` first"):
        publish(make_run(metrics), "tiny", "dial", tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == TEXT and not (tmp_path / "results").exists()


def test_without_markers_nothing_is_written(publish, ablated, tmp_path):
    (tmp_path / "RESULTS.md").write_text("no markers\n")
    with pytest.raises(ValueError, match="needs the lines `<!-- tiny-ablations: begin -->`"):
        publish(ablated, "tiny", "ablations", tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == "no markers\n" and not (tmp_path / "results").exists()


def probe(seed: int, auroc: float, environment: dict) -> dict:
    def of(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    kinds = {"maths": of(auroc), "code": of(0.99), "average": of(auroc)}
    return {
        "model": "tiny",
        "seed": seed,
        "environment": environment,
        "foreign": {
            "length_range": [3.0, 9.0],
            "n": {kind: {"all": 2, "matched": 2} for kind in ("maths", "code")},
            "n_test": {"all": 4, "matched": 4},
            "averaged": ["maths", "code"],
            "auroc": {"detector": kinds},
            "difference": {"length": {"maths": of(0.3), "code": of(0.2), "average": of(0.25)}},
            "flagged": {"maths": 0.5, "code": 1.0},
            "false_alarms": {"helpful": 0.02, "all": 0.02},
            "tax": {"loss": {"base": kinds}, "relative": {"alignx": {kind: of(-0.05) for kind in kinds}}},
        },
        "disguise": {"axis": "harmless", "floor": 0.5, "by_kind": {}, "floor_holds": seed == 0},
        "several-axes": {
            "n": 3,
            "n_asked": 4,
            "n_not_all_axes": 2,
            "figures": {name: {"all_served": of(share)} for name, share in (("pi", 0.43), ("plain", 0.13))},
            "difference": {},
        },
        "kinds": ["foreign"],
        "limit": None,
        "guard_axis": "harmless",
    }


def test_seeds_of_a_probe_stand_side_by_side(publish, make_run, metrics, tmp_path):
    environment = {"accelerator": "", **metrics["environment"]}
    runs = [make_run(metrics, name=f"run-{seed}", seed=seed) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        path = run.evaluation_folder("probe") / "metrics.json"
        write_json(path, probe(seed, 0.97 + seed / 100, environment))
        run.mark_done("probe", {}, path)
    (tmp_path / "RESULTS.md").write_text(TEXT.replace("ablations", "probe"))
    publish(runs[0], "tiny", "probe", tmp_path, seeds=runs[1:])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| figure | seed 0 | seed 1 |" in text and "seeds 0, 1," in text
    for cells in (
        "0.970 (0.960 to 0.980) | 0.980 (0.970 to 0.990)",
        "0.200 (code) (0.190 to 0.210) |",
        "false alarms on own test prompts | 2.0% | 2.0%",
        "AlignX, average | \N{MINUS SIGN}5.00%",
        "disguised request | yes | NO",
        "AlignX | 0.430 (0.420 to 0.440)",
        "plain router | 0.130 (0.120 to 0.140)",
    ):
        assert cells in text
    assert json.loads((tmp_path / "results" / "tiny.probe.json").read_text())["further"][0]["seed"] == 1
    with pytest.raises(ArtifactError, match="run `alignx probe"):
        publish(runs[0], "tiny", "probe", tmp_path, seeds=[make_run(metrics, name="other", seed=2)])
    with pytest.raises(ArtifactError, match="--seeds is not for `cost`"):
        publish(runs[0], "tiny", "cost", tmp_path, seeds=runs[1:])
    with pytest.raises(ConfigError, match="give runs of different seeds"):
        publish(runs[0], "tiny", "probe", tmp_path, seeds=runs[:1])
    write_json(runs[1].evaluation_folder("probe") / "metrics.json", probe(1, 0.97, environment) | {"limit": 3})
    runs[1].mark_done("probe", {}, runs[1].evaluation_folder("probe") / "metrics.json")
    with pytest.raises(ArtifactError, match="probed with another limit"):
        publish(runs[0], "tiny", "probe", tmp_path, seeds=runs[1:])
