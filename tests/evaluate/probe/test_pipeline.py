"""`alignx probe` on a finished run of a tiny model, as a user types it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alignx.cli import run as command
from alignx.config import RunConfig
from alignx.runs import RunDirectory
from alignx.runs.files import read_jsonl

AXES = ("helpful", "harmless", "honest")
Finished = Callable[[str], tuple[RunConfig, RunDirectory]]


@pytest.fixture(scope="module")
def probed(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run, probed with a few prompts of every kind."""
    root = tmp_path_factory.mktemp("probe") / "run"
    shutil.copytree(finished_run("llama")[1].root, root)
    assert command(["probe", str(root), "--limit", "3", "--answers", "2", "--max-new-tokens", "4"]) == 0
    return root


def metrics_of(root: Path) -> dict:
    return json.loads((root / "eval/probe/metrics.json").read_text())


def test_every_probe_has_its_figures(probed: Path) -> None:
    metrics = metrics_of(probed)
    assert metrics["kinds"] == ["foreign", "disguise", "several-axes"]
    foreign = metrics["foreign"]
    assert list(foreign["n"]) == ["maths", "code", "chinese", "language", "noise", "alpaca-like"]
    assert set(foreign["auroc"]) == {"detector", "axis-doubt", "best-doubt", "length"}
    assert "alpaca-like" not in foreign["averaged"]
    averaged = [foreign["auroc"]["detector"][kind]["value"] for kind in foreign["averaged"]]
    if averaged:
        assert foreign["auroc"]["detector"]["average"]["value"] == pytest.approx(sum(averaged) / len(averaged))
    assert set(foreign["false_alarms"]) == {*AXES, "all"}
    methods = {"base", "uniform", "alignx", "alignx-fallback-base", *(f"expert-{axis}" for axis in AXES)}
    assert methods <= set(foreign["tax"]["loss"]) and methods - {"base"} <= set(foreign["tax"]["relative"])
    assert set(metrics["disguise"]["by_kind"]) == {"plain", "translation", "code-block", "noise", "role-play"}
    assert metrics["several-axes"]["n"] == metrics["several-axes"]["n_asked"] > 0


def test_rows_give_the_figures_again(probed: Path) -> None:
    metrics, rows = metrics_of(probed), read_jsonl(probed / "eval/probe/prompts.jsonl")
    harmless = [row["pi"]["harmless"] for row in rows if row["probe"] == "disguise" and row["kind"] == "role-play"]
    assert min(harmless) == pytest.approx(metrics["disguise"]["by_kind"]["role-play"]["min"])
    several = [row for row in rows if row["probe"] == "several-axes"]
    served = [all(row["pi"][axis] >= 0.2 for axis in row["needs"]) for row in several]
    assert sum(served) / len(served) == pytest.approx(metrics["several-axes"]["figures"]["pi"]["all_served"]["value"])
    noise = [row for row in rows if row["probe"] == "foreign" and row["kind"] == "noise"]
    base, ours = (sum(row["loss"][name] for row in noise) / len(noise) for name in ("base", "alignx"))
    assert base == pytest.approx(metrics["foreign"]["tax"]["loss"]["base"]["noise"]["value"])
    assert ours / base - 1 == pytest.approx(metrics["foreign"]["tax"]["relative"]["alignx"]["noise"]["value"])
    for row in rows:
        assert row["out_of_distribution"] == (row["known"] < 0.5) and row["tokens"] > 0
        assert sum(row["axis_probs"].values()) == pytest.approx(1)
    alarms = [row["out_of_distribution"] for row in rows if row["probe"] == "test" and row["kind"] == "honest"]
    assert sum(alarms) / len(alarms) == metrics["foreign"]["false_alarms"]["honest"]


def test_a_floor_holds_whatever_the_disguise(probed: Path) -> None:
    metrics, rows = metrics_of(probed), read_jsonl(probed / "eval/probe/prompts.jsonl")
    assert metrics["disguise"]["floor_holds"] is True
    assert all(row["pi_with_floor"] >= 0.5 - 1e-12 for row in rows if row["probe"] == "disguise")


def test_the_same_prompts_are_answered_by_base_experts_and_mixture(probed: Path) -> None:
    rows = read_jsonl(probed / "eval/probe/answers.jsonl")
    by_prompt: dict[str, list[str]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).append(row["method"])
    assert len(by_prompt) == 2
    assert all(names == ["base", *(f"expert-{axis}" for axis in AXES), "alignx"] for names in by_prompt.values())


def test_a_second_time_nothing_is_done_again(probed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (probed / "eval/probe/metrics.json").stat().st_mtime_ns
    arguments = ["probe", str(probed), "--limit", "3", "--answers", "2", "--max-new-tokens", "4"]
    assert command(arguments) == 0
    shown = capsys.readouterr()
    assert "probe: up to date" in shown.err and "loading" not in shown.err
    for words in ("AUROC at matched lengths", "Alignment tax", "The floor held on every prompt.", "axes they need"):
        assert words in shown.out
    assert (probed / "eval/probe/metrics.json").stat().st_mtime_ns == before


def test_a_report_holds_the_probe_and_is_not_confused_by_it(probed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["evaluate", str(probed)]) == 0
    assert command(["report", str(probed)]) == 0
    for name in ("report.md", "report.html"):
        text = (probed / name).read_text(encoding="utf-8")
        assert "Off its own data" in text and "AUROC at matched lengths" in text
        assert "Evaluation on other data" not in text
    metrics = probed / "eval/probe/metrics.json"
    whole = metrics.read_text()
    metrics.write_text(whole + " ")
    assert command(["report", str(probed)]) == 2
    assert "is not what was written" in capsys.readouterr().err
    metrics.write_text(whole)


def test_what_changes_is_made_again_and_losses_are_kept(probed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["probe", str(probed), "--limit", "3", "--kinds", "foreign,disguise", "--guard-axis", "honest"]
    assert command([*again, "--floor", "0.7"]) == 0
    assert "loss of alignx on foreign text: up to date" in capsys.readouterr().err
    metrics = metrics_of(probed)
    assert metrics["disguise"]["axis"] == "honest" and metrics["disguise"]["floor"] == 0.7
    assert "several-axes" not in metrics


def test_a_run_without_the_guard_axis_says_so(
    tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig], tmp_path: Path, capsys
) -> None:
    from alignx.stage1.pipeline import run_stage1
    from alignx.stage2.pipeline import run_stage2

    whole = tiny_config(tiny_models["llama"], stage1={"shared_expert": False}, evaluate={"joint": False})
    named = {"clear": whole.axes["helpful"], "true": whole.axes["honest"]}
    named = {axis: config.model_copy(update={"instruction": "Be so."}) for axis, config in named.items()}
    config, run = whole.model_copy(update={"axes": named}), RunDirectory(tmp_path / "run")
    run_stage1(config, run)
    run_stage2(config, run)
    assert command(["probe", str(run.root), "--limit", "2"]) == 0
    shown = capsys.readouterr().out
    assert "disguise: left out: this run has no axis `harmless`; name the one to watch with --guard-axis" in shown
    assert "several-axes: left out: no prompt needs only axes that this run has (clear, true)" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kinds", "foreing"], "unknown kind `foreing`; did you mean `foreign`?"),
        (["--kinds", "maths"], "unknown kind `maths`; give foreign, disguise, several-axes"),
        (["--kinds", ","], "names no probe"),
        (["--guard-axis", "harmful"], "--guard-axis harmful: this run's axes are helpful, harmless, honest"),
        (["--floor", "1.5"], "--floor 1.5: must lie in [0, 1]"),
        (["--floor", "nan"], "--floor nan: must lie in [0, 1]"),
    ],
)
def test_what_cannot_be_probed_is_refused(
    finished_run: Finished, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished_run("llama")[1].root
    assert command(["probe", str(root), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (root / "eval/probe").exists()


def test_a_run_without_a_mixture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["probe", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
