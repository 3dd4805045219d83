"""Figures of the judges -> tables: a section a judge, a table a measure, and the averages that name their judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignx.evaluate.judging.figure import (
    FLIP_RATE,
    INFO_RATE,
    REFUSAL_RATE,
    SAFETY_SCORE,
    TI,
    TRUTH_RATE,
    WIN_RATE,
    WIN_RATE_LC,
)
from alignx.evaluate.judging.headline import LIKELIHOOD
from alignx.evaluate.methods import BASE
from alignx.report.judge_quality import left_out_words, quality_table
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import ALIGNX, is_main, method_label, number, number_range, ordered_methods

# Measure -> (name, which way is better, data set whose column stands in the terminal's table).
_MEASURES = {
    WIN_RATE: ("win rate", "higher is better", "alpaca"),
    WIN_RATE_LC: ("length-controlled win rate", "higher is better", "alpaca"),
    FLIP_RATE: ("flip rate", "how often the verdict changes with the order of the answers", "alpaca"),
    SAFETY_SCORE: ("safety score (unsafe answers)", "lower is better", "beavertails"),
    REFUSAL_RATE: ("refusal rate", "lower is better on harmless prompts", "overrefusal"),
    TRUTH_RATE: ("true", "higher is better", "truthfulqa"),
    INFO_RATE: ("informative", "higher is better", "truthfulqa"),
    TI: ("true and informative (TI)", "higher is better", "truthfulqa"),
}
MEASURE_NAMES = {measure: (title, direction) for measure, (title, direction, _) in _MEASURES.items()}
_SHORT = {
    WIN_RATE: "win rate",
    WIN_RATE_LC: "LC win rate",
    FLIP_RATE: "flips",
    SAFETY_SCORE: "unsafe",
    REFUSAL_RATE: "refusals",
    TRUTH_RATE: "true",
    INFO_RATE: "informative",
    TI: "TI",
}
_HEADLINE = {
    WIN_RATE: "WR (higher)",
    SAFETY_SCORE: "SS (lower)",
    TI: "TI (higher)",
    "average": "Avg (higher)",
    "average_published": "Avg as published (higher)",
}
_VERSUS_BASE = (WIN_RATE, SAFETY_SCORE, TI)
# Columns of the terminal's tables that fit side by side with their intervals.
_TERMINAL_COLUMNS = 5
_AVERAGE_NOTE = (
    "Avg = (WR + 100 - SS + TI) / 3, as published (WR + TI - SS) / 3. Each column has one judge. Of DARE, WR is "
    "the mean of its seeds, and the answers are the first one's. With each value: its 95% bootstrap interval over "
    "prompts."
)


@dataclass(frozen=True)
class JudgePart:
    """One judge's section: who judged what, then its tables."""

    title: str
    summary: str
    tables: Sequence[Table]


def judge_parts(metrics: Mapping[str, Any]) -> list[JudgePart]:
    """A section for each judge, in the order of the figures; none when nothing was judged."""
    judged = metrics.get("judges")
    if judged is None:
        return []
    return [_part(name, section, list(judged["groups"])) for name, section in judged["sections"].items()]


def average_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """One table for each set of judges that gives win rate, safety score and TI."""
    judged = metrics.get("judges")
    if judged is None:
        return []
    tables = []
    for average in judged["averages"]:
        tables.append(_average_table(average, judged["sections"]))
        if any("versus_base" in row for row in average["table"].values()):
            tables.append(_versus_base_table(average))
    return tables


def terminal_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """What the command prints: the averages, and of each judge every measure on the data set it is known from."""
    judged = metrics["judges"]
    shown = [table for section in judged["sections"].values() for table in _terminal_tables(section, judged["groups"])]
    agreement = quality_table([judge for section in judged["sections"].values() for judge in section["judges"]])
    return [*average_tables(metrics), *shown, *([agreement] if agreement else [])]


def _part(name: str, section: Mapping[str, Any], groups: list[str]) -> JudgePart:
    axes = [group for group in groups if group != "overrefusal"]
    tables = [_measure_table(measure, section, groups, axes) for measure in _MEASURES if measure in section["table"]]
    tables += [_paired_table(measure, section, groups, axes) for measure in _MEASURES if measure in section["paired"]]
    if section["categories"]:
        tables.append(_category_table(section["categories"], axes))
    agreement = quality_table(section["judges"])
    tables += [agreement] if agreement else []
    return JudgePart(f"Judge: {judge_label(section)}", judge_summary(section), tables)


def judge_label(section: Mapping[str, Any]) -> str:
    """Names and models of a section's judges."""
    return " and ".join(f"{judge['name']} ({judge['model']})" for judge in section["judges"])


def judge_summary(section: Mapping[str, Any]) -> str:
    """How many questions have a verdict, and why the others have none."""
    n = section["n"]
    words = f"{n['judged']} of {n['questions']} questions judged, {n['unparseable']} unparseable, {n['failed']} failed."
    if section["identical"]:
        words += f" {section['identical']} comparisons of identical answers count as ties."
    if section["cut"]:
        words += f" {section['cut']} answers were cut to fit the judge."
    left_out = left_out_words(section["judges"])
    if left_out:
        words += f" {left_out}."
    if section["reasons"]:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in section["reasons"].items())
        words += f" Without a verdict: {reasons}."
    return words


def _measure_table(measure: str, section: Mapping[str, Any], groups: list[str], axes: list[str]) -> Table:
    name, direction, _ = _MEASURES[measure]
    table = section["table"][measure]
    columns = [group for group in groups if any(group in by_group for by_group in table.values())]
    baseline = section["baseline"]
    against = f" against {method_label(baseline)}" if measure in (WIN_RATE, WIN_RATE_LC, FLIP_RATE) else ""
    return Table(
        f"{name[0].upper()}{name[1:]}{against}: per cent, {direction}",
        "method",
        tuple(Column(group, _common_n(table, group)) for group in columns),
        tuple(
            Row(
                method,
                method_label(method),
                tuple(_cell(table[method].get(group)) for group in columns),
                is_ours=method == ALIGNX,
            )
            for method in ordered_methods(table, axes)
        ),
    )


def _paired_table(measure: str, section: Mapping[str, Any], groups: list[str], axes: list[str]) -> Table:
    name, direction, _ = _MEASURES[measure]
    table = section["paired"][measure]
    columns = [group for group in groups if any(group in by_group for by_group in table.values())]
    return Table(
        f"AlignX minus the other, {name}: percentage points, {direction}",
        "AlignX against",
        tuple(Column(group, _common_n(table, group)) for group in columns),
        tuple(
            Row(method, method_label(method), tuple(_cell(table[method].get(group), signed=True) for group in columns))
            for method in ordered_methods(table, axes)
        ),
        "Paired by prompt, over prompts that both have a verdict on.",
    )


def _category_table(categories: Mapping[str, Any], axes: list[str]) -> Table:
    methods = ordered_methods(categories, axes)
    names = [name for name in categories[methods[0]] if name != "n"]
    return Table(
        "Answers flagged by harm category: per cent of all answers, lower is better",
        "category",
        tuple(Column(method_label(method), categories[method]["n"]) for method in methods),
        tuple(
            Row(
                name,
                name.replace("_", " ").replace(",", ", "),
                tuple(Cell(number(categories[method][name], 1)) for method in methods),
            )
            for name in names
        ),
        "An answer may be flagged with several categories.",
    )


def _average_table(average: Mapping[str, Any], sections: Mapping[str, Any]) -> Table:
    judges, table = average["judges"], average["table"]
    roles = {role: column for role, column in _HEADLINE.items() if any(role in row for row in table.values())}
    axes = list(average["groups"].values())
    who = ", ".join(f"{_HEADLINE[role].split()[0]} by {_who(name, sections)}" for role, name in judges.items())
    return Table(
        "Win rate, safety score, TI and their average: per cent",
        "method",
        tuple(Column(title, _n_of(table, role)) for role, title in roles.items()),
        tuple(
            Row(
                method,
                method_label(method),
                tuple(_cell(table[method][role]) for role in roles),
                is_ours=method == ALIGNX,
            )
            for method in ordered_methods(table, axes)
        ),
        f"{who}. {_AVERAGE_NOTE}",
    )


def _who(name: str, sections: Mapping[str, Any]) -> str:
    if name == LIKELIHOOD:
        return "the likelihood of the reference answer, against the base model's"
    return judge_label(sections[name])


def _n_of(table: Mapping[str, Any], role: str) -> int | None:
    """Prompts behind a column, where they are the same for every method; an average rests on those of its parts."""
    found = {row[role]["n"] for row in table.values()}
    return found.pop() if len(found) == 1 and not role.startswith("average") else None


def _versus_base_table(average: Mapping[str, Any]) -> Table:
    """The ratios that the paper prints."""
    table = {method: row["versus_base"] for method, row in average["table"].items() if method != BASE}
    return Table(
        "Against the base model: WR and TI in per cent of the base's, SS in percentage points",
        "method",
        tuple(
            Column(title, _n_of(table, role))
            for role, title in zip(_VERSUS_BASE, ("WR (higher)", "SS (lower)", "TI (higher)"), strict=True)
        ),
        tuple(
            Row(
                method,
                method_label(method),
                tuple(
                    _cell(table[method][role], signed=True, unit="" if role == SAFETY_SCORE else "%")
                    for role in _VERSUS_BASE
                ),
                is_ours=method == ALIGNX,
            )
            for method in ordered_methods(table, list(average["groups"].values()))
        ),
        "Paired by prompt. A win rate against the base itself is 50 for the base, so it cannot rise by more than 100%. "
        "With each value: its 95% bootstrap interval over prompts.",
    )


def _terminal_tables(section: Mapping[str, Any], groups: Mapping[str, str]) -> list[Table]:
    columns = [
        (measure, group)
        for measure, (_, _, dataset) in _MEASURES.items()
        for group, of in groups.items()
        if of == dataset and measure in section["table"]
    ]
    starts = range(0, len(columns), _TERMINAL_COLUMNS)
    return [_terminal_table(section, columns[start : start + _TERMINAL_COLUMNS], list(groups)) for start in starts]


def _terminal_table(section: Mapping[str, Any], columns: Sequence[tuple[str, str]], groups: list[str]) -> Table:
    methods = {method for measure, _ in columns for method in section["table"][measure]}
    found = [method for method in ordered_methods(sorted(methods), groups) if is_main(method)]
    return Table(
        f"Judge {judge_label(section)}: per cent",
        "method",
        tuple(
            Column(f"{_SHORT[measure]}\n{group}", _common_n(section["table"][measure], group))
            for measure, group in columns
        ),
        tuple(
            Row(
                method,
                method_label(method),
                tuple(_cell(section["table"][measure].get(method, {}).get(group)) for measure, group in columns),
                is_ours=method == ALIGNX,
            )
            for method in found
        ),
        judge_summary(section),
    )


def _cell(found: Mapping[str, Any] | None, *, signed: bool = False, unit: str = "") -> Cell:
    """A value with its interval; what is unscored is said in every cell that it touches."""
    if found is None:
        return Cell("none")
    unscored = f"{found['unscored']} of {found['n'] + found['unscored']} unscored" if found["unscored"] else ""
    if found["value"] is None:
        return Cell("too few scored" if found["n"] else "none scored", unscored)
    sign = "+" if signed and found["value"] > 0 else ""
    interval = number_range(*found["interval"], digits=1)
    return Cell(f"{sign}{number(found['value'], 1)}{unit}", f"{interval}; {unscored}" if unscored else interval)


def _common_n(table: Mapping[str, Any], group: str) -> int | None:
    """Verdicts behind a column, where all methods have as many."""
    counts = {by_group[group]["n"] for by_group in table.values() if group in by_group}
    return counts.pop() if len(counts) == 1 else None
