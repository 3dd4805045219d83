import io

import numpy as np
import pytest
from rich.console import Console

from alignx.evaluate import measures
from alignx.evaluate.likelihood.judge import Judgement
from alignx.report.figures import loss_figure, reliability_figure, versus_figure
from alignx.report.tables import (
    calibration_table,
    confusion_table,
    likelihood_table,
    loss_columns,
    loss_table,
    loss_table_rows,
    mixture_table,
    render_terminal_table,
    routing_facts_table,
    versus_table,
)

TABLES = [
    loss_table,
    versus_table,
    likelihood_table,
    calibration_table,
    mixture_table,
    confusion_table,
    routing_facts_table,
]


def printed(metrics, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render_terminal_table(metrics))
    return console.file.getvalue()


def cells(table, name):
    return [cell.text for row in table.rows if row.name == name for cell in row.cells]


@pytest.mark.parametrize("make_table", TABLES)
@pytest.mark.parametrize("which", ["metrics", "two_axes_metrics", "bad_metrics"])
def test_every_row_has_a_cell_for_every_column(make_table, which, request):
    table = make_table(request.getfixturevalue(which))
    assert table.rows
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}


def test_loss_rows_hold_value_and_interval_in_the_order_of_the_tables(metrics):
    rows = loss_table_rows(metrics)
    assert [row.name for row in rows][:8] == [
        "base",
        "expert-helpful",
        "expert-harmless",
        "expert-honest",
        "joint",
        "uniform",
        "task-arithmetic",
        "alignx",
    ]
    assert rows[-1].name == "oracle-best-expert"
    alignx = rows[7]
    assert alignx.is_ours
    assert (alignx.cells[0].text, alignx.cells[0].interval) == ("1.742", "1.690 to 1.799")
    assert [(column.title, column.n) for column in loss_columns(metrics)] == [
        ("helpful", 200),
        ("harmless", 200),
        ("honest", 140),
        ("average", 540),
    ]


def test_versus_starts_with_the_regret_and_says_a_verdict(metrics):
    table = versus_table(metrics)
    assert table.rows[0].name == "regret"
    assert cells(table, "regret")[0] == "+0.42%"
    assert cells(table, "regret")[-1] == "not distinguishable"
    assert cells(table, "joint")[-1] == "better"


def test_likelihood_has_a_column_only_where_something_was_measured(metrics, two_axes_metrics):
    titles = [column.title for column in likelihood_table(metrics).columns]
    assert titles == [
        "win rate vs base (helpful)",
        "win rate vs base (harmless)",
        "win rate vs base (honest)",
        "safe preferred (harmless)",
        "MC1 (honest)",
        "MC2 (honest)",
        "average",
    ]
    assert [column.n for column in likelihood_table(metrics).columns][3:] == [188, 140, 140, None]
    assert "safe preferred" not in str(likelihood_table(two_axes_metrics).columns)


def test_a_missing_average_is_said_to_be_missing(metrics):
    del metrics["likelihood"]["alignx"]["average"]
    assert cells(likelihood_table(metrics), "alignx")[-1] == "none"


def test_likelihood_says_what_its_figures_do_not_compare_with(metrics):
    note = likelihood_table(metrics).note
    assert "chat prompt style" in note and "not with published figures" in note and "GPT-4" in note


def test_calibration_says_whether_chance_explains_the_error(metrics):
    table = calibration_table(metrics)
    assert cells(table, "axis/alignx")[:4] == ["0.018", "0.019", "0.031", "yes"]
    assert cells(table, "best_expert/alignx")[3] == "no"
    assert len(table.rows) == 6


def test_confusion_counts_prompts(metrics):
    assert cells(confusion_table(metrics), "harmless") == ["12", "176", "12", "88.0%"]
    assert cells(mixture_table(metrics), "honest") == ["15.0%", "15.0%", "70.0%"]


def test_the_terminal_table_fits_and_leaves_ablations_out(metrics):
    text = printed(metrics)
    assert max(map(len, text.splitlines())) <= 100
    for word in (
        "base model",
        "expert: harmless",
        "joint LoRA",
        "uniform merge",
        "AlignX",
        "1.690 to 1.799",
        "n = 540",
    ):
        assert word in text
    assert "…" not in text and "ablation" not in text and "oracle" not in text
    whole = " ".join(text.split())
    assert "Nats per target token" in whole and "Judge: likelihood" in whole and "95% bootstrap interval" in whole
    assert "joint LoRA -1.30% (-1.90% to -0.70%), better" in whole


def test_the_terminal_table_works_without_a_joint_lora_and_with_two_axes(two_axes_metrics):
    for part in ("loss", "loss_interval", "alignx_versus", "likelihood"):
        del two_axes_metrics[part]["joint"]
    text = printed(two_axes_metrics)
    assert "joint" not in text and "expert: honest" in text


def test_the_terminal_table_of_many_axes_keeps_every_value(metrics):
    more = [f"axis{number}" for number in range(8)]
    for axis in more:
        metrics["n"] = {axis: 10} | metrics["n"]
        for method in metrics["loss"]:
            metrics["loss"][method][axis], metrics["loss_interval"][method][axis] = 1.234, [1.2, 1.3]
    text = printed(metrics, width=140)
    assert text.count("1.234") == 7 * len(more)
    assert max(map(len, text.splitlines())) <= 140


def test_what_the_evaluation_computes_can_be_shown(metrics):
    rng = np.random.default_rng(0)
    axes = ["helpful"] * 20 + ["harmless"] * 20 + ["honest"] * 20
    hashes = [f"prompt {number}" for number in range(60)]
    methods = ["base", "expert-helpful", "expert-harmless", "expert-honest", "uniform", "alignx"]
    losses = {method: rng.uniform(1, 3, 60) for method in methods}
    judgements = {
        method: [Judgement(method, *both, loss, 5) for *both, loss in zip(hashes, axes, losses[method], strict=True)]
        for method in methods
    }
    prompts = measures.ScoredPrompts(hashes, axes, losses, judgements)
    draws = {"n_draws": 100, "seed": 0}
    metrics["n"] = {axis: 20 for axis in dict.fromkeys(axes)} | {"average": 60}
    metrics["loss"], metrics["loss_interval"] = measures.loss_table(prompts, **draws)
    ours, own = losses["alignx"], measures.own_expert_losses(prompts)
    metrics["regret"] = measures.relative_difference(prompts, ours, own, **draws)
    metrics["alignx_versus"] = {
        method: measures.relative_difference(prompts, ours, losses[method], **draws) for method in methods[:-1]
    }
    metrics["likelihood"] = measures.likelihood_table(prompts, dict.fromkeys(dict.fromkeys(axes), "alpaca"), **draws)
    probs = rng.dirichlet(np.ones(3), 60)
    metrics["calibration"] = measures.calibration_table(
        dict.fromkeys(("alignx", "plain", "plain_with_temperature"), (probs, probs)),
        rng.integers(0, 3, 60),
        np.stack([losses[method] for method in methods[1:4]], axis=1),
        tie_tolerance=0.01,
        n_bins=15,
        **draws,
    )
    for make_table in TABLES:
        assert make_table(metrics).rows
    for draw in (loss_figure, reliability_figure, versus_figure):
        assert draw(metrics).startswith("<svg")
    assert "AlignX" in printed(metrics)
