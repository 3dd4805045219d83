"""The sweep's words, tables and pictures, from figures made by hand."""

import re

import pytest
from markupsafe import escape

from alignx.report.markdown import escape_inline
from alignx.report.page import write_report
from alignx.report.tradeoff import best_fixed, front_table, rival_verdict, sentences, setting_label, tradeoff_tables
from alignx.report.tradeoff_figures import dial_figure, pair_figure, triangle_figure
from alignx.runs.files import write_json
from sweeps import make_sweep

AXES = ["helpful", "harmless", "honest"]


def test_the_sentences_follow_the_figures():
    metrics = make_sweep(AXES)
    text = " ".join(sentences(metrics))
    assert "10%, 20% and so on to 90%" in text and "(helpful 6, harmless 6, honest 6)" in text
    assert text.count("rises with its dial (Spearman 1.00)") == 3
    assert "Of 12 mixtures that are the same for every prompt, fixed ones and merges, 12 have a setting" in text
    assert "Beyond" not in text
    assert re.search(
        r"the dial's settings dominate \d+% and fixed mixtures \d+%, a difference of \+[\d.]+% \(95%", text
    )
    metrics["dials"]["honest"] |= {"spearman": 0.4}
    metrics["dials"]["helpful"] |= {"spearman": None}
    metrics["rivals"]["ties"] |= {"gap": -0.2, "interval": [-0.3, -0.1]}
    metrics["rivals"]["joint"] |= {"gap": -0.01, "interval": [-0.1, 0.1]}
    text = " ".join(sentences(metrics))
    assert "does not simply rise with its dial (Spearman 0.40)" in text and "it does not move" in text
    assert "Beyond the dial's reach: TIES" in text
    assert "Against the joint LoRA it is \N{MINUS SIGN}1.0% (not distinguishable)" in text


@pytest.mark.parametrize(("n", "said"), [(1, True), (6, False)])
def test_an_axis_that_is_read_by_its_loss_for_want_of_prompts_says_so(n, said):
    metrics = make_sweep(AXES) | {"measurable": {"helpful": 6, "harmless": n, "honest": 6}}
    metrics["measure"]["harmless"] = "minus_loss"
    assert ("harmless is read by its loss: only 1 of its 6 prompts" in " ".join(sentences(metrics))) == said


def test_tables_name_every_rival_and_preset():
    metrics = make_sweep(AXES)
    dial, cost, place, rivals = tradeoff_tables(metrics)
    front = front_table(metrics)
    assert [row.label for row in dial.rows] == AXES and len(cost.rows) == 3
    assert [row.label for row in place.rows][:4] == ["dial at rest", "preset cautious", "preset frank", "preset eager"]
    assert [row.label for row in place.rows][-1] == setting_label(best_fixed(metrics))
    assert {row.name for row in rivals.rows} == set(metrics["rivals"])
    assert len(front.rows) <= sum(bool(one["front"]) for one in metrics["settings"].values())
    for table in (dial, cost, place, front, rivals):
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_a_short_lead_is_beyond_reach_only_when_the_interval_says_so():
    assert rival_verdict({"gap": 0.0, "interval": [-0.1, 0.1]}) == "within reach"
    assert rival_verdict({"gap": -0.1, "interval": [-0.2, 0.01]}) == "not distinguishable"
    assert rival_verdict({"gap": -0.1, "interval": [-0.2, -0.01]}) == "beyond reach"
    assert rival_verdict({"gap": -0.1, "interval": None}) == "not distinguishable"


@pytest.mark.parametrize("m", [2, 3, 5])
def test_pictures_fit_the_number_of_axes(m):
    metrics = make_sweep([f"axis-{at}" for at in range(m)], n=3, resolution=2)
    assert dial_figure(metrics).count("<svg") == m
    assert triangle_figure(metrics).count("<svg") == (3 if m == 3 else 0)
    assert ("the dial's settings dominate" in " ".join(sentences(metrics))) == (m < 5)
    pairs = pair_figure(metrics)
    assert pairs.count("<svg") == m * (m - 1) // 2
    ids = re.findall(r' id="([^"]+)"', dial_figure(metrics) + triangle_figure(metrics) + pairs)
    assert len(ids) == len(set(ids))


def test_names_are_shown_as_text_everywhere(make_run, metrics):
    hostile = "<script>alert('x')</script>|*b*"
    run = make_run(metrics)
    axes = [hostile, "harmless", "honest"]
    sweep = make_sweep(axes, n=2, resolution=2, merges=("<b>ties</b>",))
    write_json(run.evaluation_folder("tradeoff") / "metrics.json", sweep)
    page, text = (path.read_text(encoding="utf-8") for path in write_report(run))
    assert "The dial" in page and "## The dial" in text
    assert "<script" not in page and "<b>ties" not in page
    assert str(escape(hostile)) in page and escape_inline(hostile) in text
    assert not re.search(r"(?<!\\)<(script|b>ties)", text)
    assert "Evaluation on other data: tradeoff" not in page


def test_a_report_without_a_sweep_has_no_such_section(written):
    assert "The dial<" not in written[0] and "## The dial" not in written[1]
