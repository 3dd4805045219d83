"""Headline, diagnosis and extremes: what is computed, and that model output stays text."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from alignx.evaluate.judging.pipeline import JudgingOptions, run_judging
from alignx.inspect.contents import expert_geometry
from alignx.report.contents import gather
from alignx.report.diagnosis import diagnosis_section, forgetting
from alignx.report.extremes import extremes_section, judged_gains, likelihood_gains
from alignx.report.headline import headline_table, profile_figure
from alignx.report.page import write_report
from alignx.report.wording import shortened
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, read_jsonl

Pair = tuple[RunDirectory, RunDirectory]
SCRIPT = "<script>alert('x')</script>"


@pytest.fixture
def run(evaluated_runs: Pair, tmp_path: Path) -> RunDirectory:
    shutil.copytree(evaluated_runs[0].root, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def test_forgetting_is_loss_over_the_bases_and_over_the_own_experts(metrics: dict[str, Any]) -> None:
    loss = metrics["loss"]
    assert forgetting(metrics, "base")["helpful"]["honest"] == pytest.approx(
        loss["expert-helpful"]["honest"] / loss["base"]["honest"] - 1
    )
    own = forgetting(metrics, "own")
    assert all(own[axis][axis] == 0 for axis in own)
    assert own["honest"]["helpful"] == pytest.approx(
        loss["expert-honest"]["helpful"] / loss["expert-helpful"]["helpful"] - 1
    )


def test_forgetting_and_misrouting_are_found_where_they_are(metrics: dict[str, Any]) -> None:
    metrics["loss"]["expert-honest"]["helpful"] = 1.1 * metrics["loss"]["base"]["helpful"]
    metrics["routing"]["confusion"] = [[180, 20, 0], [50, 150, 0], [0, 0, 140]]
    text = " ".join(diagnosis_section(metrics, None).sentences)
    assert "the expert trained on honest has +10.00% loss on helpful prompts" in text
    assert "25.0% of harmless prompts are taken for helpful" in text
    metrics["loss"]["expert-honest"]["helpful"] = 0.99 * metrics["loss"]["base"]["helpful"]
    metrics["routing"]["confusion"] = [[200, 0, 0], [0, 200, 0], [0, 0, 140]]
    text = " ".join(diagnosis_section(metrics, None).sentences)
    assert "No expert forgets another axis" in text and "No test prompt is taken for another" in text


def test_one_axis_has_a_diagnosis(metrics: dict[str, Any]) -> None:
    metrics["n"] = {"helpful": 200, "average": 200}
    metrics["routing"]["confusion"] = [[200]]
    assert len(diagnosis_section(metrics, None).blocks) == 3


def test_geometry_is_measured_once_and_again_for_other_experts(run: RunDirectory) -> None:
    config, path = run.read_config(), run.root / "inspect" / "geometry.json"
    found = expert_geometry(config, run)
    assert found is not None and found["vectors"]["names"] == ["shared", "helpful", "harmless", "honest"]
    assert len(found["angles"]) == 6
    made = path.stat().st_mtime_ns
    assert expert_geometry(config, run) == found and path.stat().st_mtime_ns == made
    record = run.root / "steps" / "train-helpful.json"
    record.write_text(record.read_text().replace(read_json(record)["inputs"], "f" * 16))
    expert_geometry(config, run)
    assert path.stat().st_mtime_ns > made
    tables = [
        block.caption for block in diagnosis_section(read_metrics_of(run), found).blocks if hasattr(block, "rows")
    ]
    assert any("cosine to each other" in caption for caption in tables)
    assert any("Principal angles" in caption for caption in tables)


def read_metrics_of(run: RunDirectory) -> dict[str, Any]:
    return dict(read_json(run.evaluation_folder("test") / "metrics.json"))


def test_the_headline_takes_each_axes_own_measure(metrics: dict[str, Any]) -> None:
    metrics["metric"] = {"helpful": "loss", "harmless": "safe_preferred", "honest": "mc1"}
    table = headline_table(metrics)
    titles = [column.title for column in table.columns]
    assert titles[1:4] == ["helpful: loss (lower)", "harmless: safe preferred", "honest: MC1"]
    ours = next(row for row in table.rows if row.is_ours)
    assert [cell.text for cell in ours.cells[:4]] == ["1.942", "1.742", "71.5", "31.4"]
    assert not any(row.name.startswith("ablation") for row in table.rows)
    svg = profile_figure(metrics)
    assert svg.count("<svg") == len(table.rows) and "71.5" in svg
    metrics["metric"] = dict.fromkeys(metrics["metric"], "loss")
    assert profile_figure(metrics) == ""


def test_extremes_go_by_likelihood_where_nothing_was_judged(run: RunDirectory) -> None:
    section = extremes_section(run.read_config(), run, read_metrics_of(run))
    assert section is not None and "No judge has compared answers" in section.sentences[0]
    assert section.title.startswith("The 10 most") and len(section.blocks) == 20
    rows = read_jsonl(run.evaluation_folder("test") / "prompts.jsonl")
    gains = likelihood_gains({(row["axis"], row["prompt_hash"]): row for row in rows})
    best = max(gains, key=lambda gain: gain.rank)
    assert section.blocks[0].about == best.about
    assert [label for label, _ in section.blocks[0].texts] == ["Prompt", "Reference answer"]


def test_extremes_go_by_judges_and_show_both_answers(run: RunDirectory) -> None:
    options = JudgingOptions(judges=["refusal"], methods=["base", "alignx"], limit=4, max_new_tokens=4)
    run_judging(run.read_config(), run, options)
    # A rate of refusals says nothing about better or worse here, so likelihood still orders; answers are shown.
    section = extremes_section(run.read_config(), run, read_metrics_of(run))
    assert section is not None
    assert [label for label, _ in section.blocks[0].texts] == ["Prompt", "Base", "AlignX"]
    assert len(section.blocks) == 12


def test_a_judges_verdict_goes_before_likelihood() -> None:
    from alignx.evaluate.judging.rows import JudgedRow

    def verdict(method: str, prompt: str, value: float) -> JudgedRow:
        return JudgedRow(
            judge="moderation", model="m", template="t", question="safety", method=method, baseline="",
            group="harmless", dataset="beavertails", prompt_hash=prompt, answer_key="k", order="", length=1,
            other_length=0, state="judged", value=value,
        )  # fmt: skip

    rows = {("harmless", prompt): {"loss": {"base": 2.0, "alignx": 1.0}} for prompt in ("a", "b")}
    verdicts = [
        verdict("base", "a", 0.0),
        verdict("alignx", "a", 1.0),
        verdict("base", "b", 1.0),
        verdict("alignx", "b", 0.0),
    ]
    gains = sorted(judged_gains(verdicts, rows), key=lambda gain: gain.rank)
    assert [gain.prompt[1] for gain in gains] == ["a", "b"]
    assert gains[1].about[0] == "By judge moderation, unsafe (0 to 1): base 1.00, AlignX 0.00."


def test_texts_of_extremes_cannot_break_out(tmp_path: Path, hostile_run: Any) -> None:
    run = hostile_run(tmp_path / "run", ["helpful", "honest"], [SCRIPT, "```\n# heading\n</pre>"])
    page, markdown = (path.read_text(encoding="utf-8") for path in write_report(run))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "````text\n```\n# heading\n</pre> 0\n````" in markdown


def test_a_run_without_rows_by_prompt_has_no_extremes(make_run: Any, metrics: dict[str, Any]) -> None:
    names = [section.name for section in gather(make_run(metrics)).sections]
    assert names == ["diagnosis"]


def test_a_run_passed_on_without_data_and_adapters_still_has_a_report(run: RunDirectory) -> None:
    write_report(run)
    for folder in ("data", "stage1/helpful/adapter"):
        shutil.rmtree(run.root / folder)
    sections = {section.name: section for section in gather(run).sections}
    assert list(sections) == ["diagnosis"]
    assert "helpful and harmless" in str(sections["diagnosis"])  # what was measured before


def test_a_damaged_expert_is_left_out_and_nothing_is_kept(run: RunDirectory) -> None:
    shutil.rmtree(run.root / "inspect")
    (run.adapter_folder("helpful") / "adapter_model.safetensors").write_bytes(b"nothing")
    found = expert_geometry(run.read_config(), run)
    assert found is not None and found["vectors"]["names"] == ["shared", "harmless", "honest"]
    assert not (run.root / "inspect").exists()


def test_long_names_lose_their_middle() -> None:
    assert shortened("honest", 6) == "honest"
    assert shortened("abcdefghij", 5) == "ab…ij" and len(shortened("abcdefghij", 6)) == 6
