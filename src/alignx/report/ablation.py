"""The ablation table in words: what each part buys, in loss and in calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.evaluate.ablation.variants import ALIGNX, BESIDE, PARTS
from alignx.evaluate.measures import AVERAGE
from alignx.report.section import Section
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import number, number_range, signed_per_cent, signed_range, verdict_on

_NONE = Cell("\N{EN DASH}")


def ablation_section(metrics: Mapping[str, Any]) -> Section:
    """The tables as a section of the report."""
    return Section("ablations", "Ablations", (), ablation_tables(metrics))


def ablation_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Parts, sweeps, calibration, and (of several runs) the losses a seed; from `eval/ablate/metrics.json`."""
    sweeps = [row for row in metrics["rows"] if row["group"] not in {PARTS, BESIDE}]
    tables = [_parts(metrics)]
    if sweeps:
        tables.append(_sweeps(metrics, sweeps))
    tables.append(_calibration(metrics))
    return [*tables, _seeds(metrics)] if len(metrics["seeds"]) > 1 else tables


def _parts(metrics: Mapping[str, Any]) -> Table:
    rows = [row for row in metrics["rows"] if row["group"] in {PARTS, BESIDE}]
    return _losses(
        metrics,
        rows,
        "Ablations: nats per target token, and differences in per cent; lower is better",
        "With values: 95% bootstrap intervals; differences are paired by prompt, and prompts that several seeds test "
        "are drawn together. The average weighs every axis the same.",
    )


def _sweeps(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    n = rows[0]["n"][AVERAGE]
    return _losses(
        metrics,
        rows,
        "Settings of the warm start, one changed at a time: nats per target token, and differences in per cent",
        f"Scored on {n} prompts, the first of each axis: the differences compare the same prompts, the losses do not "
        "compare with the table above. Lambda rows set both learned coefficients a to 1.",
    )


def _losses(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], caption: str, note: str) -> Table:
    axes, shown = metrics["axes"], []
    for row in rows:
        versus = row["versus_alignx"]
        cells = (
            Cell(str(row["n"][AVERAGE])),
            Cell(number(row["loss"][AVERAGE]), number_range(*row["loss_interval"])),
            *(Cell(number(row["loss"][axis])) for axis in axes),
            Cell(signed_per_cent(row["regret"][AVERAGE]), signed_range(row["regret"]["interval"])),
            _NONE if row["name"] == ALIGNX else _versus(versus),
        )
        shown.append(Row(row["name"], row["label"], cells, is_ours=row["name"] == ALIGNX))
    return Table(
        caption,
        "row",
        (
            Column("n"),
            Column(AVERAGE),
            *(Column(axis) for axis in axes),
            Column("regret against own expert"),
            Column("against AlignX"),
        ),
        tuple(shown),
        note,
    )


def _versus(versus: Mapping[str, Any]) -> Cell:
    value, interval = versus[AVERAGE], versus["interval"]
    verdict = verdict_on(value, *interval)
    return Cell(signed_per_cent(value), signed_range(interval), verdict if verdict in {"better", "worse"} else "")


def _calibration(metrics: Mapping[str, Any]) -> Table:
    questions = {"axis": "axis", "best_expert": "best expert"}
    shown = []
    for row in metrics["rows"]:
        if row["calibration"] is None:
            continue
        cells: list[Cell] = []
        for question in questions:
            found = row["calibration"][question]
            cells += [
                Cell(number(found["ece"]), f"p95 {number(found['perfect_p95'])}"),
                Cell(number(found["brier"])),
                Cell(number(found["log_loss"])),
            ]
        auroc = row.get("foreign_auroc")
        cells.append(_NONE if auroc is None else Cell(number(auroc)))
        shown.append(Row(row["name"], row["label"], tuple(cells), is_ours=row["name"] == ALIGNX))
    columns = [Column(f"{what} ({of})") for of in questions.values() for what in ("ECE", "Brier", "log loss")]
    return Table(
        "Ablations: how far the read-outs can be believed, on all test prompts",
        "row",
        (*columns, Column("foreign AUROC")),
        tuple(shown),
        "p95: what a perfectly calibrated predictor stays under in 95% of samples of this size. Foreign AUROC: "
        "calibration prompts against the foreign development set, at the depth that was chosen on it. Rows without "
        "read-outs of their own are left out.",
    )


def _seeds(metrics: Mapping[str, Any]) -> Table:
    seeds: Sequence[int] = metrics["seeds"]
    shown = []
    for row in metrics["rows"]:
        by_seed = {found["seed"]: found for found in row["by_seed"]}
        cells = tuple(
            Cell(number(by_seed[seed]["loss"]), signed_per_cent(by_seed[seed]["versus_alignx"])) for seed in seeds
        )
        shown.append(Row(row["name"], row["label"], cells, is_ours=row["name"] == ALIGNX))
    return Table(
        "Ablations by seed: loss on the average of the axes, and the difference to that seed's AlignX",
        "row",
        tuple(Column(f"seed {seed}") for seed in seeds),
        tuple(shown),
        "Every seed has its own splits.",
    )
