"""`alignx ablate` on tiny runs, end to end."""

import shutil
from pathlib import Path

import pytest

from alignx import workflow
from alignx.cli import run as alignx
from alignx.config import RunConfig
from alignx.evaluate.ablation.pipeline import read_ablation, read_ablation_rows
from alignx.evaluate.pipeline import read_metrics
from alignx.runs import RunDirectory
from alignx.runs.files import read_json
from alignx.stage1.pipeline import run_stage1
from alignx.stage2 import fit
from alignx.stage2.pipeline import run_stage2

AXES = ("helpful", "harmless", "honest")


def _evaluated(config: RunConfig, root: Path) -> RunDirectory:
    """A run whose both stages are there, with its config written, evaluated."""
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"joint": False})})
    run = RunDirectory(root)
    run.write_config(config, {})
    workflow.evaluate(root)
    return run


@pytest.fixture(scope="module", autouse=True)
def _given_penalty():
    """Choosing the penalty takes most of the time, and is tested with the logistic fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "choose_l2", lambda *arguments: 0.1)
        yield


@pytest.fixture(scope="module")
def evaluated(finished_run, tmp_path_factory) -> RunDirectory:
    config, finished = finished_run("llama")
    root = tmp_path_factory.mktemp("ablate") / "run"
    shutil.copytree(finished.root, root)
    run_stage2(config, RunDirectory(root))
    (root / "steps" / "mocae.json").unlink()  # fitted with another penalty
    run_stage2(config, RunDirectory(root))
    return _evaluated(config, root)


@pytest.fixture(scope="module")
def ablated(evaluated) -> RunDirectory:
    assert alignx(["ablate", str(evaluated.root), "--sweep-limit", "3"]) == 0
    return evaluated


def rows_of(run: RunDirectory) -> dict[str, dict]:
    return {row["name"]: row for row in read_ablation(run)["rows"]}


def test_every_part_and_every_sweep_has_a_row(ablated):
    rows = rows_of(ablated)
    parts = [name for name, row in rows.items() if row["group"] == "parts"]
    assert parts == [
        "shared-only",
        "uniform",
        "plain-router",
        "router-head",
        "router-fractal",
        "router-natural",
        "warm-start",
        "strength-1",
        "one-hot-best",
        "one-hot-axis",
        "alignx",
    ]
    assert {row["group"] for row in rows.values()} == {"parts", "lambda", "epsilon", "q"}
    assert all(row["n"]["average"] == (24 if row["group"] == "parts" else 9) for row in rows.values())


def test_alignx_is_what_the_evaluation_says(ablated):
    row, metrics = rows_of(ablated)["alignx"], read_metrics(ablated)
    for name in (*AXES, "average"):
        assert row["loss"][name] == pytest.approx(metrics["loss"]["alignx"][name], rel=1e-6)
    assert row["loss_interval"] == pytest.approx(metrics["loss_interval"]["alignx"]["average"], rel=1e-6)
    assert row["regret"]["average"] == pytest.approx(metrics["regret"]["average"], abs=1e-6)
    for axis, pi in metrics["routing"]["mean_pi"].items():
        assert row["mean_pi"][axis] == pytest.approx(pi, rel=1e-12)
    for question in ("axis", "best_expert"):
        for measure, value in row["calibration"][question].items():
            assert value == pytest.approx(metrics["calibration"][question]["alignx"][measure], rel=1e-9), measure
    assert row["versus_alignx"]["average"] == 0
    assert row["foreign_auroc"] == max(metrics["routing"]["foreign_auroc_on_development_set"])


def test_uniform_is_the_uniform_method(ablated):
    row, metrics = rows_of(ablated)["uniform"], read_metrics(ablated)
    for name in (*AXES, "average"):
        assert row["loss"][name] == pytest.approx(metrics["loss"]["uniform"][name], rel=1e-6)
    assert row["versus_alignx"]["nats"] == pytest.approx(-metrics["alignx_versus"]["uniform"]["nats"], abs=1e-6)
    assert row["calibration"] is None and row["foreign_auroc"] is None


def test_the_plain_router_is_calibrated_as_the_evaluation_says(ablated):
    row, metrics = rows_of(ablated)["plain-router"], read_metrics(ablated)
    for question in ("axis", "best_expert"):
        for measure, value in row["calibration"][question].items():
            assert value == pytest.approx(metrics["calibration"][question]["plain_with_temperature"][measure], rel=1e-9)


def test_the_warm_start_reads_out_what_the_mixture_does(ablated):
    """The end-to-end step changes the mixture head and the strength, and no read-out."""
    rows = rows_of(ablated)
    assert rows["warm-start"]["calibration"] == rows["alignx"]["calibration"]
    assert read_json(ablated.mocae_settings_path)["end_to_end"]["kept_pass"] > 0
    assert rows["warm-start"]["loss"] != rows["alignx"]["loss"]


def test_settings_of_a_sweep_that_are_the_runs_own_are_its_warm_start(ablated):
    rows = rows_of(ablated)
    assert rows["epsilon-0.05"]["mean_pi"] == rows["warm-start"]["mean_pi"]
    assert rows["q-2"]["mean_pi"] == rows["warm-start"]["mean_pi"]
    assert rows["lambda-fractal-0"]["mean_pi"] != rows["lambda-fractal-1"]["mean_pi"]


def test_one_hot_rows_use_one_expert_as_it_is(ablated):
    for row in read_ablation_rows(ablated):
        if row.variant.startswith("one-hot"):
            assert sorted(row.pi) == [0, 0, 1]
            assert row.loss == row.expert_losses[row.pi.index(1)]


def test_losses_of_the_same_mixture_are_scored_once(ablated):
    kept = (ablated.evaluation_folder("ablate") / "losses.jsonl").read_text().splitlines()
    rows = [row for row in read_ablation_rows(ablated) if row.loss is not None]
    assert len(kept) < 24 * 3 + len(rows) - 2 * 24 - 2 * 9


def test_the_same_command_again_does_nothing(ablated, capsys):
    written = [*ablated.root.rglob("eval/ablate/*"), ablated.root / "report.html"]
    before = {path: path.stat().st_mtime_ns for path in written}
    assert alignx(["ablate", str(ablated.root), "--sweep-limit", "3"]) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == before
    shown = capsys.readouterr()
    assert "ablations: up to date" in shown.err and "loading" not in shown.err
    assert "plain router" in shown.out and "lambda natural" in shown.out and "ECE (axis)" in shown.out


def test_the_report_has_the_table(ablated):
    markdown, page = (ablated.root / "report.md").read_text(), (ablated.root / "report.html").read_text()
    assert "## Ablations" in markdown and "likeliest axis's expert alone" in markdown
    assert 'id="ablations"' in page and "foreign AUROC" in page
    assert "Evaluation on other data" not in markdown


@pytest.fixture
def copy(ablated, tmp_path) -> RunDirectory:
    shutil.copytree(ablated.root, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


def test_only_named_rows_and_few_prompts(copy, capsys):
    assert alignx(["ablate", str(copy.root), "--only", "uniform,one-hot-best", "--limit", "2"]) == 0
    rows = rows_of(copy)
    assert list(rows) == ["uniform", "one-hot-best", "alignx"]
    assert all(row["n"] == dict.fromkeys(AXES, 2) | {"average": 6} for row in rows.values())
    assert "0 prompts scored" in capsys.readouterr().err


def test_damaged_losses_are_scored_again(copy, capsys):
    path = copy.evaluation_folder("ablate") / "losses.jsonl"
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1))
    assert alignx(["ablate", str(copy.root), "--only", "uniform"]) == 0
    assert "scoring again" in capsys.readouterr().err
    assert rows_of(copy)["uniform"]["loss"]["average"] < 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "unifrom"], "no such row; give a group (parts, lambda, epsilon, q)"),
        (["--only", " , "], "expected names with commas"),
    ],
)
def test_rows_that_are_not_there_are_refused(copy, capsys, words, message):
    assert alignx(["ablate", str(copy.root), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_unfinished_run_says_what_to_run(finished_run, tmp_path, capsys):
    config, finished = finished_run("llama")
    shutil.copytree(finished.root / "stage1", tmp_path / "run" / "stage1")
    RunDirectory(tmp_path / "run").write_config(config, {})
    assert alignx(["ablate", str(tmp_path / "run")]) == 2
    assert "no mixture yet; run `alignx stage2" in capsys.readouterr().err
    assert not (tmp_path / "run" / "eval").exists()


def test_a_folder_that_is_no_run_says_so(tmp_path, capsys):
    assert alignx(["ablate", str(tmp_path / "none")]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_another_run_beside(copy, tmp_path, capsys):
    config = copy.read_config()
    stage2 = config.stage2.model_copy(update={"learn_coefficients": False})
    shutil.copytree(copy.root, tmp_path / "other")
    other = config.model_copy(update={"stage2": stage2})
    run_stage2(other, RunDirectory(tmp_path / "other"))
    _evaluated(other, tmp_path / "other")
    words = ["ablate", str(copy.root), "--only", "uniform", "--beside", str(tmp_path / "other")]
    assert alignx(words) == 0
    row = rows_of(copy)["stage2.learn_coefficients False"]
    theirs = read_metrics(RunDirectory(tmp_path / "other"))
    assert row["loss"]["average"] == pytest.approx(theirs["loss"]["alignx"]["average"], rel=1e-9)
    assert row["group"] == "beside"
    capsys.readouterr()
    assert alignx(["ablate", str(copy.root), "--beside", str(copy.root)]) == 2
    assert "its settings are those of this run" in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_runs_of_different_seeds_are_pooled(copy, tmp_path, capsys):
    config = copy.read_config().model_copy(update={"seed": 1})
    root = tmp_path / "seed-1"
    run_stage1(config, RunDirectory(root))
    run_stage2(config, RunDirectory(root))
    _evaluated(config, root)
    assert alignx(["ablate", str(copy.root), str(root), "--only", "parts"]) == 0
    pooled = read_json(copy.evaluation_folder("ablate") / "pooled.json")
    singles = [rows_of(copy), rows_of(RunDirectory(root))]
    assert pooled["seeds"] == [0, 1]
    for row in pooled["rows"]:
        own = [single[row["name"]] for single in singles]
        assert row["n"]["average"] == 48
        assert [found["loss"] for found in row["by_seed"]] == [one["loss"]["average"] for one in own]
        assert row["loss"]["average"] == pytest.approx(sum(one["loss"]["average"] for one in own) / 2, rel=1e-9)
    assert "Ablations by seed" in capsys.readouterr().out
    assert alignx(["ablate", str(copy.root), str(copy.root)]) == 2
    assert "has seed 0, as" in capsys.readouterr().err
