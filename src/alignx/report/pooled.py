"""Tables of several seeds pooled: what `RESULTS.md` shows beside the tables of one run."""

from collections.abc import Mapping
from typing import Any

from alignx.evaluate.measures import AVERAGE
from alignx.report.tables import PREDICTORS, QUESTIONS, Cell, Column, Row, Table
from alignx.report.wording import (
    ALIGNX,
    axes_of,
    is_main,
    method_label,
    number,
    number_range,
    ordered_methods,
    signed_per_cent,
    signed_range,
)


def by_seed_table(pooled: Mapping[str, Any]) -> Table:
    """Average loss of every method in each seed, and AlignX's difference from it."""
    seeds = [str(seed) for seed in pooled["seeds"]]
    rows = []
    for method in ordered_methods(pooled["loss"], axes_of(pooled)):
        cells = [Cell(number(pooled["by_seed"][seed]["loss"][method][AVERAGE])) for seed in seeds]
        for seed in seeds:
            found = pooled["by_seed"][seed]["alignx_versus"].get(method)
            cells.append(_difference(found) if found else Cell(""))
        rows.append(Row(method, method_label(method), tuple(cells), is_ours=method == ALIGNX))
    regret = [Cell("") for _ in seeds] + [_difference(pooled["by_seed"][seed]["regret"]) for seed in seeds]
    rows.append(Row("regret", "own expert of each prompt (regret)", tuple(regret)))
    columns = [Column(f"loss, seed {seed}", pooled["by_seed"][seed]["n"][AVERAGE]) for seed in seeds]
    columns += [Column(f"AlignX against it, seed {seed}") for seed in seeds]
    return Table(
        "By seed: average loss, and AlignX's difference in per cent of the other's",
        "method",
        tuple(columns),
        tuple(rows),
        "Each seed has its own splits, training and initial adapters.",
    )


def calibration_by_seed_table(pooled: Mapping[str, Any]) -> Table:
    """ECE of AlignX's read-outs in each seed, beside the 95th percentile of a perfect predictor."""
    seeds = [str(seed) for seed in pooled["seeds"]]
    rows = []
    for question, by_predictor in pooled["calibration"].items():
        for predictor in by_predictor:
            found = [pooled["by_seed"][seed]["calibration"][question][predictor] for seed in seeds]
            cells = [Cell(f"{number(one['ece'])} ({number(one['perfect_p95'])})") for one in found]
            label = f"{QUESTIONS.get(question, question)} {PREDICTORS.get(predictor, predictor)}"
            rows.append(Row(f"{question}/{predictor}", label, tuple(cells), is_ours=predictor == ALIGNX))
    return Table(
        "ECE by seed (in brackets: what a perfectly calibrated predictor exceeds in 5% of such samples)",
        "question and predictor",
        tuple(Column(f"seed {seed}", pooled["by_seed"][seed]["n"][AVERAGE]) for seed in seeds),
        tuple(rows),
    )


def calibration_versus_table(metrics: Mapping[str, Any]) -> Table:
    """AlignX's Brier score and log loss minus those of the plain router, with and without temperature, paired."""
    rows = []
    for question, by_other in metrics["calibration_versus"].items():
        for other, by_measure in by_other.items():
            cells = tuple(
                Cell(_signed(found["value"]), f"{_signed(found['interval'][0])} to {_signed(found['interval'][1])}")
                for found in by_measure.values()
            )
            label = f"{QUESTIONS.get(question, question)} against {PREDICTORS.get(other, other)}"
            rows.append(Row(f"{question}/{other}", label, cells))
    n = metrics["n"][AVERAGE]
    return Table(
        "AlignX's Brier score and log loss minus the other's; negative is better for AlignX",
        "question and predictor",
        (Column("Brier", n), Column("log loss", n)),
        tuple(rows),
        "Paired by prompt. With each value: its 95% bootstrap interval.",
    )


def _signed(value: float) -> str:
    """Three digits with a sign and a typographic minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def partial_tables(pooled: Mapping[str, Any]) -> list[Table]:
    """A table for each method that only some of the seeds have, beside the main methods on the same prompts."""
    tables = []
    for method, found in pooled["partial"].items():
        columns = [*axes_of(pooled), AVERAGE]
        rows = []
        for name in ordered_methods(found["loss"], axes_of(pooled)):
            if name == method or is_main(name):
                cells = [
                    Cell(number(found["loss"][name][column]), number_range(*found["loss_interval"][name][column]))
                    for column in columns
                ]
                rows.append(Row(name, method_label(name), tuple(cells), is_ours=name == ALIGNX))
        versus = found["alignx_versus"]
        seeds = ", ".join(str(seed) for seed in found["seeds"])
        tables.append(
            Table(
                f"{method_label(method)}: loss in seed {seeds} only",
                "method",
                tuple(Column(column, found["n"][column]) for column in columns),
                tuple(rows),
                f"AlignX against it, paired by prompt: {signed_per_cent(versus[AVERAGE])} "
                f"({signed_range(versus['interval'])}).",
            )
        )
    return tables


def _difference(found: Mapping[str, Any]) -> Cell:
    return Cell(signed_per_cent(found[AVERAGE]), signed_range(found["interval"]))
