"""Several seeds pooled and published: figures are those of the rows; runs that do not belong together are refused."""

import copy
import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignx.errors import AlignXError, ConfigError
from alignx.evaluate.pipeline import run_evaluate
from alignx.evaluate.pooled import pool, read_seeds
from alignx.report.pooled import by_seed_table, partial_tables
from alignx.runs import RunDirectory
from alignx.stage1.pipeline import run_stage1
from alignx.stage2.pipeline import run_stage2

AXES = ("helpful", "harmless", "honest")
SCRIPT = Path(__file__).parents[2] / "scripts" / "publish_results.py"


@pytest.fixture(scope="module")
def runs(tiny_models, tiny_config, tmp_path_factory):
    """Two evaluated runs of one config, seeds 0 and 1."""
    root = tmp_path_factory.mktemp("seeds")
    found = []
    for seed in (0, 1):
        config = tiny_config(
            tiny_models["llama"], seed=seed, stage1={"shared_expert": False}, evaluate={"ablations": True}
        )
        run = RunDirectory(root / str(seed))
        run_stage1(config, run)
        run_stage2(config, run)
        run_evaluate(config, run)
        found.append(run)
    return found


@pytest.fixture(scope="module")
def seeds(runs):
    return read_seeds(runs)


def _average(rows, method):
    """Mean of the axes' mean losses; `own` is each prompt's own axis's expert."""
    column = "expert-{axis}" if method == "own" else method
    means = [[row["loss"][column.format(axis=axis)] for row in rows if row["axis"] == axis] for axis in AXES]
    return np.mean([np.mean(losses) for losses in means])


def test_figures_are_those_of_all_rows_and_a_prompt_of_both_seeds_is_one_cluster(seeds):
    pooled = pool(seeds)
    rows = [row for seed in seeds for row in seed.rows]
    assert pooled["n"] == {**dict.fromkeys(AXES, 16), "average": 48}
    twice = {row["prompt_hash"] for row in seeds[0].rows} & {row["prompt_hash"] for row in seeds[1].rows}
    assert twice and sum(pooled["distinct_prompts"].values()) == 48 - len(twice)
    for method in seeds[0].methods:
        assert pooled["loss"][method]["average"] == pytest.approx(_average(rows, method))
    for found, method in (
        (pooled["regret"], "alignx"),
        (pooled["regret_of"]["ablation-plain-router"], "ablation-plain-router"),
    ):
        assert found["average"] == pytest.approx(_average(rows, method) / _average(rows, "own") - 1)
        assert found["interval"][0] <= found["average"] <= found["interval"][1]


def test_paired_differences_of_calibration_come_from_the_rows(seeds):
    rows = [row for seed in seeds for row in seed.rows]

    def brier(row, prefix):
        return sum(
            (probability - (axis == row["axis"])) ** 2 for axis, probability in row[f"{prefix}axis_probs"].items()
        )

    found = pool(seeds)["calibration_versus"]["axis"]
    for other, prefix in (("plain", "plain_"), ("plain_with_temperature", "plain_scaled_")):
        by_hand = np.mean([brier(row, "") - brier(row, prefix) for row in rows])
        assert found[other]["brier"]["value"] == pytest.approx(by_hand)
        low, high = found[other]["brier"]["interval"]
        assert low <= by_hand <= high


def test_one_seed_alone_gives_its_own_figures(seeds):
    alone = pool(seeds[:1])
    for name in ("loss", "ece", "brier", "log_loss", "accuracy", "n"):
        assert alone[name] == seeds[0].metrics[name]
    assert alone["alignx_versus"]["joint"]["average"] == seeds[0].metrics["alignx_versus"]["joint"]["average"]


def test_a_method_of_one_seed_is_kept_apart(seeds):
    metrics = copy.deepcopy(seeds[1].metrics)
    for part in ("loss", "alignx_versus"):
        del metrics[part]["joint"]
    rows = [
        {**row, "loss": {name: loss for name, loss in row["loss"].items() if name != "joint"}} for row in seeds[1].rows
    ]
    pooled = pool([seeds[0], replace(seeds[1], metrics=metrics, rows=rows)])
    assert "joint" not in pooled["loss"] and "joint" not in pooled["likelihood"]
    assert pooled["partial"]["joint"]["seeds"] == [0]
    assert pooled["partial"]["joint"]["loss"]["joint"] == seeds[0].metrics["loss"]["joint"]
    (table,) = partial_tables(pooled)
    assert "in seed 0 only" in table.caption and {"joint", "alignx", "base"} <= {row.name for row in table.rows}
    assert "joint" not in {row.name for row in by_seed_table(pooled).rows}


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="seed 0 is given twice"):
        read_seeds([runs[0], runs[0]])
    other = RunDirectory(tmp_path / "other")
    shutil.copytree(runs[1].root, other.root)
    config = other.read_config()
    other.write_config(config.model_copy(update={"stage1": config.stage1.model_copy(update={"rank": 4})}), {})
    with pytest.raises(ConfigError, match="`stage1` is not as in"):
        read_seeds([runs[0], other])
    with pytest.raises(AlignXError, match="not evaluated yet|not a run directory"):
        read_seeds([RunDirectory(tmp_path / "nothing")])


def test_the_script_writes_figures_rows_and_tables_and_keeps_the_prose(runs, tmp_path):
    publish = runpy.run_path(str(SCRIPT))["publish"]
    results = tmp_path / "RESULTS.md"
    results.write_text("Before.\n<!-- tiny: begin -->\nold\n<!-- tiny: end -->\nAfter.\n", encoding="utf-8")
    publish([run.root for run in runs], "tiny", tmp_path)
    text = results.read_text(encoding="utf-8")
    assert text.startswith("Before.\n<!-- tiny: begin -->") and text.endswith("<!-- tiny: end -->\nAfter.\n")
    assert "old" not in text and "seeds 0, 1" in text and "regret of ablation: plain router" in text
    document = json.loads((tmp_path / "results" / "tiny.json").read_text(encoding="utf-8"))
    assert document["seeds"] == [0, 1] and set(document["by_seed"]) == {"0", "1"}
    rows = [json.loads(line) for line in (tmp_path / "results" / "tiny.prompts.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0] * 24 + [1] * 24
    results.write_text("no markers\n", encoding="utf-8")
    with pytest.raises(ValueError, match="needs the lines"):
        publish([run.root for run in runs], "tiny", tmp_path)
    assert results.read_text(encoding="utf-8") == "no markers\n"
