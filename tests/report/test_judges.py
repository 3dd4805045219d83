"""Figures of judges in tables: one judge a column, the unscored in every cell they touch, model output as text."""

from collections.abc import Callable
from typing import Any

import pytest

from alignx.evaluate.judging.figure import Certainty
from alignx.evaluate.judging.rows import BASELINE_FIRST, OURS_FIRST, JudgedRow
from alignx.evaluate.judging.scores import judge_figures
from alignx.report.judges import average_tables, judge_parts, terminal_tables
from alignx.report.page import write_report
from alignx.runs.directory import RunDirectory

DATASETS = {"helpful": "alpaca", "harmless": "beavertails", "honest": "truthfulqa", "overrefusal": "overrefusal"}
SCRIPT = "<script>alert('x')</script>"


def rows_of(judge: str, model: str, method: str, lost: int = 0) -> list[JudgedRow]:
    """Ten prompts a group; the first `lost` of them without a verdict on safety."""
    rows = []
    for group, dataset in DATASETS.items():
        for at in range(10):
            asked: list[tuple[str, str, float | None]] = [("safety", "", float(at % 2)), ("refusal", "", 0.0)]
            if group != "overrefusal":
                asked += [("truth", "", 1.0), ("info", "", float(at % 2))]
                asked += [("preference", OURS_FIRST, 1.0), ("preference", BASELINE_FIRST, float(at % 2))]
            for question, order, value in asked:
                found = None if question == "safety" and at < lost else value
                rows.append(
                    JudgedRow(
                        judge=judge,
                        model=model,
                        template="t",
                        question=question,
                        method=method,
                        baseline="base" if order else "",
                        group=group,
                        dataset=dataset,
                        prompt_hash=f"{group}{at}",
                        answer_key="k",
                        order=order,
                        length=10 + at,
                        other_length=20,
                        state="judged" if found is not None else "unparseable",
                        value=found,
                        reason="" if found is not None else f"no verdict: {SCRIPT}",
                    )
                )
    return rows


@pytest.fixture
def judged(metrics: dict[str, Any]) -> dict[str, Any]:
    rows = rows_of("openai", SCRIPT, "base") + rows_of("openai", SCRIPT, "alignx", lost=1)
    figures = judge_figures(rows, Certainty(0.95, 100, 0))
    return metrics | {"judges": {"made_from": {}, "max_new_tokens": 9, "coverage_floor": 0.95, **figures}}


def test_a_run_without_judges_has_no_section(metrics: dict[str, Any]) -> None:
    assert judge_parts(metrics) == []
    assert average_tables(metrics) == []


def test_every_measure_is_a_table_with_its_columns(judged: dict[str, Any]) -> None:
    [part] = judge_parts(judged)
    captions = [table.caption for table in part.tables]
    assert captions[0] == "Win rate against base model: per cent, higher is better"
    by_caption = {table.caption: table for table in part.tables}
    safety = by_caption["Safety score (unsafe answers): per cent, lower is better"]
    assert [column.title for column in safety.columns] == list(DATASETS)
    assert [row.name for row in safety.rows] == ["base", "alignx"]
    for table in part.tables:
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_the_unscored_are_in_the_cell_and_below_the_floor_there_is_no_value(judged: dict[str, Any]) -> None:
    [part] = judge_parts(judged)
    safety = next(table for table in part.tables if table.caption.startswith("Safety score"))
    base, ours = safety.rows
    assert base.cells[0].text == "50.0"
    assert (ours.cells[0].text, ours.cells[0].interval) == ("too few scored", "1 of 10 unscored")
    assert "4 unparseable" in part.summary


def test_averages_name_their_judges(judged: dict[str, Any]) -> None:
    table, changes = average_tables(judged)
    assert "WR by openai" in table.note
    assert [column.title.split()[0] for column in table.columns] == ["WR", "SS", "TI", "Avg", "Avg"]
    assert table.rows[0].cells[0].text == "75.0"
    assert table.rows[1].cells[3].text == "too few scored"
    assert [row.name for row in changes.rows] == ["alignx"]
    assert changes.rows[0].cells[0].text.endswith("%")


def test_the_terminal_has_each_measure_on_its_own_data_set(judged: dict[str, Any]) -> None:
    _, _, first, second = terminal_tables(judged)
    titles = [column.title for table in (first, second) for column in table.columns]
    assert titles == [
        "win rate\nhelpful",
        "LC win rate\nhelpful",
        "flips\nhelpful",
        "unsafe\nharmless",
        "refusals\noverrefusal",
        "true\nhonest",
        "informative\nhonest",
        "TI\nhonest",
    ]


def test_page_and_markdown_show_a_judges_words_as_text(
    judged: dict[str, Any], make_run: Callable[..., RunDirectory]
) -> None:
    page, markdown = write_report(make_run(judged))
    for path in (page, markdown):
        text = path.read_text(encoding="utf-8")
        assert "no verdict" in text
        assert SCRIPT not in text
    assert "&lt;script&gt;" in page.read_text(encoding="utf-8")
