"""Two runs compared on the prompts they share."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alignx.cli import run as alignx
from alignx.errors import ArtifactError
from alignx.evaluate.comparison import compare_runs, differing
from alignx.evaluate.judging.pipeline import JudgingOptions, run_judging
from alignx.report.comparison import comparison_sentences
from alignx.runs import RunDirectory
from alignx.runs.files import read_jsonl, write_jsonl

Pair = tuple[RunDirectory, RunDirectory]


def copied(run: RunDirectory, root: Path) -> RunDirectory:
    shutil.copytree(run.root, root)
    return RunDirectory(root)


def rewrite_prompts(run: RunDirectory, change: Callable[[list[dict]], list[dict]]) -> None:
    folder = run.evaluation_folder("test")
    write_jsonl(folder / "prompts.jsonl", change(read_jsonl(folder / "prompts.jsonl")))
    run.mark_done("evaluate-test", {}, folder / "prompts.jsonl", folder / "metrics.json")


def test_a_run_does_not_differ_from_itself(evaluated_runs: Pair) -> None:
    first, _ = evaluated_runs
    found = compare_runs(first, first)
    assert found["n"] == {"helpful": 8, "harmless": 8, "honest": 8, "average": 24}
    assert found["left_out"] == [0, 0] and found["settings"] == {} and found["environment"] == {}
    for difference in found["difference"].values():
        assert difference["average"] == 0 and difference["interval"] == [0, 0]
    for question in found["calibration"].values():
        assert question["difference"]["accuracy"]["interval"] == [0, 0]


def test_differences_are_second_minus_first_over_the_same_prompts(evaluated_runs: Pair) -> None:
    found = compare_runs(*evaluated_runs)
    rows = [
        {(row["axis"], row["prompt_hash"]): row["loss"]["alignx"] for row in read_jsonl(path)}
        for path in (run.evaluation_folder("test") / "prompts.jsonl" for run in evaluated_runs)
    ]
    means = [
        np.mean([np.mean([loss for (axis, _), loss in part.items() if axis == name]) for name in found["axes"]])
        for part in rows
    ]
    difference = found["difference"]["alignx"]
    assert difference["average"] == pytest.approx(means[1] / means[0] - 1)
    assert difference["interval"][0] <= difference["average"] <= difference["interval"][1]
    assert found["difference"]["base"]["average"] == 0  # one base, one answer
    assert "joint" not in found["methods"]
    assert found["settings"]["stage1.rank"] == [2, 3] and "stage1.alpha" not in found["settings"]


def test_only_common_prompts_count_and_the_others_are_said(evaluated_runs: Pair, tmp_path: Path) -> None:
    first, second = evaluated_runs
    fewer = copied(second, tmp_path / "fewer")
    rewrite_prompts(fewer, lambda rows: rows[:-3])
    found = compare_runs(first, fewer)
    assert found["n"]["honest"] == 5 and found["left_out"] == [3, 0]


def test_a_run_passed_on_without_judgements_is_compared_by_loss(evaluated_runs: Pair, tmp_path: Path) -> None:
    first, second = evaluated_runs
    fewer = copied(second, tmp_path / "fewer")
    (fewer.evaluation_folder("test") / "judgments.jsonl").unlink()
    measures = compare_runs(first, fewer)["likelihood"]["alignx"]
    assert set(measures["honest"]) == {"win_rate"}
    assert set(compare_runs(first, second)["likelihood"]["alignx"]["honest"]) == {"win_rate", "mc1", "mc2"}


def test_nothing_in_common_is_an_error(evaluated_runs: Pair, tmp_path: Path) -> None:
    first, second = evaluated_runs
    strange = copied(second, tmp_path / "strange")
    rewrite_prompts(strange, lambda rows: [{**row, "prompt_hash": f"{row['prompt_hash']}x"} for row in rows])
    with pytest.raises(ArtifactError, match="no test prompt in common.*same `seed`"):
        compare_runs(first, strange)


def test_judged_figures_need_the_same_judge(evaluated_runs: Pair, tmp_path: Path) -> None:
    runs = [copied(run, tmp_path / run.root.name) for run in evaluated_runs]
    assert "nothing was judged in first and second" in compare_runs(*runs)["judges"]["not_compared"]["judges"]
    options = JudgingOptions(judges=["refusal"], methods=["base", "alignx"], limit=3, max_new_tokens=4)
    for run in runs:
        run_judging(run.read_config(), run, options)
    judges = compare_runs(*runs)["judges"]
    entry = judges["sections"]["refusal"]["table"]["refusal_rate"]["alignx"]["helpful"]
    assert entry["difference"]["n"] == 3 and entry["difference"]["value"] is not None
    path = runs[1].evaluation_folder("test") / "metrics.json"
    metrics = json.loads(path.read_text())
    # What else is known of a judge does not make it another one; another template does.
    metrics["judges"]["sections"]["refusal"]["judges"][0]["checks"] = [{"data": "labels.jsonl"}]
    metrics["prompt_style"] = "qa6"
    path.write_text(json.dumps(metrics))
    runs[1].mark_done("evaluate-test", {}, path)
    found = compare_runs(*runs)
    assert found["judges"]["sections"] and found["prompt_styles"] == ["chat", "qa6"]
    assert not {"mc1", "mc2"} & found["likelihood"]["alignx"]["honest"].keys()
    assert any("two prompt styles" in sentence for sentence in comparison_sentences(found))
    metrics["judges"]["sections"]["refusal"]["judges"][0]["templates"]["refusal"] = "another"
    path.write_text(json.dumps(metrics))
    runs[1].mark_done("evaluate-test", {}, path)
    judges = compare_runs(*runs)["judges"]
    assert not judges["sections"] and "different judges" in judges["not_compared"]["refusal"]


def test_differing_names_dotted_keys_and_missing_ones() -> None:
    assert differing({"a": 1, "b": {"c": 2}}, {"b": {"c": 3, "d": []}}) == {
        "a": [1, None],
        "b.c": [2, 3],
        "b.d": [None, []],
    }


def test_the_command_prints_and_writes_a_page(
    evaluated_runs: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (str(run.root) for run in evaluated_runs)
    page = tmp_path / "pages" / "both.html"
    assert alignx(["compare", first, second, "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "Compared on 24 test prompts" in printed and "stage1.rank" in printed
    assert printed.isascii() or "\N{MINUS SIGN}" not in printed
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    for text in (html, markdown):
        assert "Loss of second minus that of first" in text and "stage1.rank" in text
    assert html.count("<svg") == 1 and "<script" not in html
    assert alignx(["compare", first, second, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"]["average"] == 24


def test_bad_input_is_one_line(evaluated_runs: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = str(evaluated_runs[0].root)
    assert alignx(["compare", first, first, "--out", str(tmp_path / "page.txt")]) == 2
    assert "ends in .html" in capsys.readouterr().err
    assert alignx(["compare", first, str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
