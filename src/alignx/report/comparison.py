"""Two runs side by side: figures of `compare_runs` -> tables, for the terminal, markdown and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignx.evaluate.measures import AVERAGE
from alignx.report.figures import difference_figure
from alignx.report.judges import MEASURE_NAMES, judge_label
from alignx.report.markdown import render_sections
from alignx.report.page import render_section_page
from alignx.report.section import Picture, Section
from alignx.report.tables import MEASURES, QUESTIONS, Cell, Column, Row, Table
from alignx.report.wording import (
    ALIGNX,
    listed,
    method_label,
    number,
    number_range,
    ordered_methods,
    signed_per_cent,
    signed_range,
    verdict_on,
)
from alignx.runs.files import write_text

_TONES = ("better", "worse")


def write_comparison(found: Mapping[str, Any], path: Path) -> list[Path]:
    """Write a comparison as a page, and beside it as markdown; returns both paths."""
    title = f"Runs {' and '.join(run_names(found))}"
    sections, lead = comparison_sections(found), " ".join(comparison_sentences(found))
    markdown = path.with_suffix(".md")
    write_text(path, render_section_page(kicker="AlignX comparison", title=title, lead=lead, sections=sections))
    write_text(markdown, render_sections(title, lead, sections))
    return [path, markdown]


def run_names(found: Mapping[str, Any]) -> tuple[str, str]:
    """What both runs are called: their folders' names, or whole paths where those are the same."""
    first, second = found["runs"]
    if first["name"] != second["name"]:
        return first["name"], second["name"]
    if first["path"] != second["path"]:
        return first["path"], second["path"]
    return f"{first['path']} (first)", f"{second['path']} (second)"


def comparison_sentences(found: Mapping[str, Any]) -> list[str]:
    """What was compared and what may be said, computed from the figures."""
    first, second = run_names(found)
    counts = ", ".join(f"{axis} {found['n'][axis]}" for axis in found["axes"])
    sentences = [f"Compared on {found['n'][AVERAGE]} test prompts that both runs have scored ({counts})."]
    for name, left in zip((first, second), found["left_out"], strict=True):
        if left:
            sentences.append(f"{left} test prompts of {name} are not among them, and play no part here.")
    models = {run["model"] for run in found["runs"]}
    if len(models) > 1:
        sentences.append(
            f"The base models differ ({listed(sorted(models))}): where their tokenizers do too, a loss a token is not "
            "the same unit."
        )
    styles = found["prompt_styles"]
    if styles[0] != styles[1]:
        sentences.append(
            f"Multiple choice was asked in two prompt styles ({styles[0]} in {first}, {styles[1]} in {second}), so it "
            "is not compared."
        )
    precisions = [run["precision"] for run in found["runs"]]
    if precisions[0] != precisions[1]:
        sentences.append(
            f"Losses were scored in {precisions[0]} in {first} and in {precisions[1]} in {second}, which alone may "
            "move them by about 0.1%."
        )
    if ALIGNX in found["difference"]:
        difference = found["difference"][ALIGNX]
        value, interval = difference[AVERAGE], difference["interval"]
        verdict = verdict_on(value, *interval)
        range_words = f"95% interval {signed_range(interval)}"
        if verdict in _TONES:
            sentences.append(
                f"AlignX's loss in {second} is {verdict} than in {first}: {signed_per_cent(value)} ({range_words})."
            )
        elif verdict == "unknown":
            sentences.append("There are too few prompts for an interval.")
        else:
            sentences.append(
                f"AlignX's losses in {first} and {second} are not distinguishable: {signed_per_cent(value)} "
                f"({range_words})."
            )
    n_compared = len(found["methods"])
    if n_compared > 1:
        sentences.append(f"{n_compared} methods are compared, each with intervals of its own; about one in 20 misses.")
    return sentences


def comparison_sections(found: Mapping[str, Any]) -> list[Section]:
    """All tables of a comparison, in order."""
    return [
        Section(
            "loss",
            "Loss",
            blocks=[
                Picture(
                    difference_figure(found),
                    "Second run minus first, average of the axes, paired by prompt. Circle: the second is better; "
                    "square: worse; hollow diamond: the 95% interval includes zero.",
                ),
                *loss_tables(found),
            ],
        ),
        *(
            [Section("likelihood", "Likelihood judge", blocks=measured)]
            if (measured := likelihood_tables(found))
            else []
        ),
        Section("calibration", "Calibration", blocks=[calibration_table(found)]),
        Section("judges", "Judges", _not_compared(found), judged_tables(found)),
        Section("made-with", "What differs in how they were made", blocks=difference_tables(found)),
    ]


def comparison_tables(found: Mapping[str, Any]) -> list[Table]:
    """What the command prints."""
    return [
        *loss_tables(found),
        *likelihood_tables(found),
        calibration_table(found),
        *judged_tables(found),
        *difference_tables(found),
    ]


def loss_tables(found: Mapping[str, Any]) -> list[Table]:
    """Loss of every method in both runs, and the paired difference."""
    first, second = run_names(found)
    methods = ordered_methods(found["methods"], found["axes"])
    columns = [*found["axes"], AVERAGE]
    heads = tuple(Column(name, found["n"][name]) for name in columns)
    rows = [
        Row(
            f"{method}/{at}",
            f"{method_label(method)}: {name}",
            tuple(
                Cell(
                    number(found["loss"][at][method][column]),
                    number_range(*found["loss_interval"][at][method][column]),
                )
                for column in columns
            ),
            is_ours=method == ALIGNX,
        )
        for method in methods
        for at, name in enumerate((first, second))
    ]
    paired = [
        Row(method, method_label(method), _difference_cells(found["difference"][method], columns), method == ALIGNX)
        for method in methods
    ]
    return [
        Table(
            "Loss on the reference answers: nats per target token, lower is better",
            "method and run",
            heads,
            tuple(rows),
            "With each value: its 95% bootstrap interval over test prompts.",
        ),
        Table(
            f"Loss of {second} minus that of {first}, in per cent of the latter; negative: {second} is better",
            "method",
            (*heads, Column("on average", is_text=True)),
            tuple(paired),
            "Paired by prompt. With each value: its 95% bootstrap interval.",
        ),
    ]


def _difference_cells(difference: Mapping[str, Any], columns: Sequence[str]) -> tuple[Cell, ...]:
    cells = []
    for column in columns:
        interval = difference["interval" if column == AVERAGE else f"{column}_interval"]
        cells.append(Cell(signed_per_cent(difference[column]), signed_range(interval)))
    verdict = verdict_on(difference[AVERAGE], *difference["interval"])
    return (*cells, Cell(verdict, tone=verdict if verdict in _TONES else ""))


def likelihood_tables(found: Mapping[str, Any]) -> list[Table]:
    """Win rate by likelihood, safe preference and multiple choice, of AlignX and the other main methods."""
    first, second = run_names(found)
    rows = []
    for method in ordered_methods(found["likelihood"], found["axes"]):
        for axis, measures in found["likelihood"][method].items():
            for name, pair in measures.items():
                cells = (
                    Cell(str(pair["n"])),
                    *(Cell(number(value, 1)) for value in pair["values"]),
                    _points(pair["difference"], pair["interval"]),
                )
                label = f"{method_label(method)}: {MEASURES[name]} ({axis})"
                rows.append(Row(f"{method}/{axis}/{name}", label, cells, method == ALIGNX))
    if not rows:
        return []
    return [
        Table(
            "Likelihood judge: per cent, higher is better",
            "method and measure",
            (Column("n"), Column(first), Column(second), Column("difference")),
            tuple(rows),
            "Difference: percentage points, paired by prompt, with its 95% bootstrap interval. Win rates are each "
            "against the run's own base.",
        )
    ]


def calibration_table(found: Mapping[str, Any]) -> Table:
    """Both read-outs of both runs."""
    names = run_names(found)
    rows = []
    for question, part in found["calibration"].items():
        for at, (name, figures) in enumerate(zip(names, part["figures"], strict=True)):
            cells = [Cell(number(figures[key])) for key in ("ece", "perfect_p95", "brier", "accuracy", "confidence")]
            rows.append(Row(f"{question}/{at}", f"{QUESTIONS[question]} {name}", tuple(cells)))
        gaps = part["difference"]
        brier, right = gaps["brier"], gaps["accuracy"]
        cells = [
            Cell(""),
            Cell(""),
            Cell(_signed(brier["difference"], 3), number_range(*brier["interval"])),
            Cell(_signed(right["difference"], 3), number_range(*right["interval"])),
            Cell(""),
        ]
        rows.append(Row(f"{question}/difference", f"{QUESTIONS[question]} difference", tuple(cells)))
    return Table(
        f"Calibration of both read-outs (n = {found['n'][AVERAGE]}); ECE and Brier: lower is better",
        "question and run",
        tuple(Column(title) for title in ("ECE", "perfect: p95", "Brier", "accuracy", "confidence")),
        tuple(rows),
        "Perfect p95: what a perfectly calibrated predictor with the same confidences stays under in 95% of samples. "
        "Differences are paired by prompt; a single ECE is too noisy to subtract.",
    )


def judged_tables(found: Mapping[str, Any]) -> list[Table]:
    """Figures of judges that have judged both runs, a table a judge and measure."""
    first, second = run_names(found)
    tables = []
    for section in found["judges"]["sections"].values():
        for name, by_method in section["table"].items():
            title, direction = MEASURE_NAMES[name]
            rows = [
                Row(
                    f"{method}/{group}",
                    f"{method_label(method)}: {group}",
                    (
                        Cell(str(entry["difference"]["n"])),
                        _judged(entry["first"]),
                        _judged(entry["second"]),
                        _judged(entry["difference"], signed=True),
                    ),
                    method == ALIGNX,
                )
                for method in ordered_methods(by_method, found["axes"])
                for group, entry in by_method[method].items()
            ]
            tables.append(
                Table(
                    f"{title[0].upper()}{title[1:]}: per cent, {direction}",
                    "method and prompts",
                    (Column("n"), Column(first), Column(second), Column("difference")),
                    tuple(rows),
                    f"Judge: {judge_label(section)}, the same templates for both. Paired by prompt, percentage points.",
                )
            )
    return tables


def difference_tables(found: Mapping[str, Any]) -> list[Table]:
    """Settings, then versions and hardware, that are not the same."""
    first, second = run_names(found)
    tables = []
    for caption, key in (("Settings that differ", "settings"), ("Environment that differs", "environment")):
        rows = tuple(
            Row(name, name, tuple(Cell(_shown(value)) for value in values)) for name, values in found[key].items()
        )
        note = "" if rows else "None."
        columns = (Column(first, is_text=True), Column(second, is_text=True))
        tables.append(Table(caption, "what", columns, rows, note))
    return tables


def _not_compared(found: Mapping[str, Any]) -> list[str]:
    reasons = found["judges"]["not_compared"]
    return [
        f"Not compared: {name}: {reason}." if name != "judges" else f"{reason.capitalize()}."
        for name, reason in reasons.items()
    ]


def _judged(document: Mapping[str, Any], *, signed: bool = False) -> Cell:
    if document["value"] is None:
        return Cell("too few scored" if document["n"] else "none scored")
    text = _signed(document["value"], 1) if signed else number(document["value"], 1)
    return Cell(text, number_range(*document["interval"], digits=1))


def _points(value: float, interval: Sequence[float]) -> Cell:
    tone = "" if interval[0] <= 0 <= interval[1] or interval[0] == interval[1] else ("better" if value > 0 else "worse")
    return Cell(_signed(value, 1), number_range(*interval, digits=1), tone)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return (number(0, digits) if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return "empty" if value in ("", [], {}) else str(value)
