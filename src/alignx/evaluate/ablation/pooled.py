"""Several runs of one config that differ in seed: one table, figures a seed and over all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.errors import ConfigError
from alignx.evaluate.ablation.figures import RowPrompt
from alignx.evaluate.ablation.pipeline import ABLATE, metrics_of, read_ablation, read_ablation_rows
from alignx.runs.directory import RunDirectory
from alignx.runs.environment import describe_environment
from alignx.runs.files import write_json

POOLED = "pooled.json"


def check_poolable(configs: Sequence[RunConfig], roots: Sequence[Path]) -> None:
    """Refuse runs that differ in more than their seed (and with it their splits' salt).

    Raises:
        ConfigError: two runs have one seed, or other settings.
    """
    seen: dict[int, Path] = {}
    first = _without_seed(configs[0])
    for config, root in zip(configs, roots, strict=True):
        if config.seed in seen:
            raise ConfigError(
                f"{root}: has seed {config.seed}, as {seen[config.seed]}; give runs of different seeds, or compare "
                "other settings with --beside"
            )
        seen[config.seed] = root
        if _without_seed(config) != first:
            raise ConfigError(
                f"{root}: its settings differ from those of {roots[0]} in more than the seed; compare it with --beside"
            )


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


def _without_seed(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"seed", "salt", "showcase"})
