"""Where the figures come from: model, data with its licences, versions and hardware."""

from collections.abc import Mapping
from typing import Any

from alignx.config import RunConfig
from alignx.data.splits import SPLITS
from alignx.data.tally import dropped_line
from alignx.report.tables import Cell, Column, Row, Table, facts_table
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json


def model_table(run: RunDirectory, config: RunConfig, metrics: Mapping[str, Any]) -> Table:
    """The base model, the seed and how figures were made."""
    base = read_json(run.base_path) if run.base_path.is_file() else {}
    facts = {
        "base model": config.model,
        "revision": str(base.get("revision") or config.revision or "none given"),
        "dtype": str(base.get("dtype") or config.dtype),
        "seed": str(config.seed),
        "bootstrap draws": str(config.evaluate.bootstrap_draws),
        "judge": f"{metrics['judge']} (prompt style {metrics['prompt_style']})",
    }
    if "precision" in metrics:
        facts["precision of the scores"] = str(metrics["precision"])
    if "peak_gb" in metrics:
        facts["peak memory of the evaluation"] = f"{metrics['peak_gb']:.2f} GB"
    return facts_table("Model and settings", facts)


def data_table(splits: Mapping[str, Any]) -> Table:
    """Source, licence and size of every axis's data, what was dropped of it, and prompts by split."""
    rows = []
    for axis, record in splits["axes"].items():
        counts = [len(record["splits"][split]) for split in SPLITS]
        dropped = "; ".join(filter(None, (dropped_line(part["dropped"]) for part in record.get("sets", ())))) or "none"
        given = (record["source"], record["licence"], record["rows_read"], record["usable_prompts"], dropped, *counts)
        rows.append(Row(axis, axis, tuple(Cell(str(one)) for one in given)))
    titles = ("source", "licence", "rows read", "usable prompts", "dropped", *SPLITS)
    return Table(
        "Data: prompts by split",
        "axis",
        tuple(Column(title, is_text=title in {"source", "licence", "dropped"}) for title in titles),
        tuple(rows),
        f"Splits are cut by a hash of the prompt with the salt {splits['salt']}; no prompt is in two of them.",
    )


def environment_table(trained_in: Mapping[str, Any], evaluated_in: Mapping[str, Any]) -> Table:
    """Commit, hardware and versions: when the run was made and when it was evaluated."""
    names = list(dict.fromkeys((*evaluated_in, *trained_in)))
    rows = tuple(
        Row(name, name, tuple(Cell(str(part.get(name) or "none")) for part in (trained_in, evaluated_in)))
        for name in names
    )
    return Table(
        "Environment",
        "what",
        (Column("run made", is_text=True), Column("evaluated", is_text=True)),
        rows,
        "A plus sign after the commit means that the source tree had uncommitted changes.",
    )
