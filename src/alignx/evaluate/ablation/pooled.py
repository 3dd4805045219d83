"""Several runs of one config that differ in seed: one table, figures a seed and over all."""

from collections.abc import Sequence
from typing import Any

from alignx.evaluate.ablation.figures import RowPrompt
from alignx.evaluate.ablation.pipeline import ABLATE, metrics_of, read_ablation, read_ablation_rows
from alignx.runs.directory import RunDirectory
from alignx.runs.environment import describe_environment
from alignx.runs.files import write_json

POOLED = "pooled.json"


def pool(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """The table of all runs' prompts, from their own tables; kept beside the first one's as `pooled.json`.

    Raises:
        ArtifactError: a run has no table.
    """
    tables = [read_ablation(run) for run in runs]
    rows: list[RowPrompt] = [row for run in runs for row in read_ablation_rows(run)]
    shared = set.intersection(*({row["name"] for row in table["rows"]} for table in tables))
    labels = {row["name"]: (row["label"], row["group"]) for row in tables[0]["rows"] if row["name"] in shared}
    config = runs[0].read_config()
    metrics = metrics_of([row for row in rows if row.variant in shared], labels, config)
    for row in metrics["rows"]:
        found = [one["foreign_auroc"] for table in tables for one in table["rows"] if one["name"] == row["name"]]
        row["foreign_auroc"] = None if None in found else sum(found) / len(found)
    metrics |= {"limit": tables[0]["limit"], "sweep_limit": tables[0]["sweep_limit"]}
    metrics["environment"] = describe_environment()
    write_json(runs[0].evaluation_folder(ABLATE) / POOLED, metrics)
    return metrics
