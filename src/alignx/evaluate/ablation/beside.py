"""Other finished runs in the table: their AlignX on the same test prompts, named by the settings that differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.errors import ConfigError
from alignx.evaluate.ablation.figures import RowPrompt
from alignx.evaluate.ablation.variants import ALIGNX
from alignx.evaluate.methods import expert_method
from alignx.evaluate.pipeline import TEST, read_metrics
from alignx.models.precision import resolved_precision
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_jsonl
from alignx.stage2.pipeline import check_current

# What says how figures are made, and not how the run was.
_NOT_NAMED = ("showcase", "evaluate")


def beside_rows(config: RunConfig, other: RunDirectory, examples: Sequence[Example]) -> tuple[str, list[RowPrompt]]:
    """Name and prompts of another run's AlignX, from its own evaluation.

    Args:
        config: of the run whose table it is.
        other: the other run, evaluated.
        examples: the table's test prompts.

    Raises:
        ConfigError: it has other axes, lacks a test prompt, was scored in another precision, or does not differ.
        ArtifactError: it is not finished or not evaluated.
    """
    theirs = other.read_config()
    check_current(theirs, other)
    metrics = read_metrics(other, TEST)
    where = f"--beside {other.root}"
    if list(theirs.axes) != list(config.axes):
        raise ConfigError(f"{where}: its axes are {', '.join(theirs.axes)}; give a run with the same axes")
    if metrics["precision"] != resolved_precision(config.evaluate.precision):
        raise ConfigError(
            f"{where}: it was scored in {metrics['precision']}, this run is in "
            f"{resolved_precision(config.evaluate.precision)}; evaluate both in one `evaluate.precision`"
        )
    differing = _differing(config, theirs)
    if not differing:
        raise ConfigError(f"{where}: its settings are those of this run; give several runs of one config without it")
    found = {(row["axis"], row["prompt_hash"]): row for row in read_jsonl(_prompts(other))}
    missing = [example for example in examples if (example.axis, example.prompt_hash) not in found]
    if missing:
        raise ConfigError(
            f"{where}: {len(missing)} of {len(examples)} test prompts of this run are no test prompts there; give a "
            "run with the same data, splits and `salt`"
        )
    name = "; ".join(differing)
    return name, [_row(name, config.seed, found[example.axis, example.prompt_hash], theirs) for example in examples]


def _row(name: str, seed: int, found: Mapping[str, Any], config: RunConfig) -> RowPrompt:
    axes = list(config.axes)
    return RowPrompt(
        variant=name,
        seed=seed,
        prompt_hash=found["prompt_hash"],
        axis=found["axis"],
        loss=found["loss"][ALIGNX],
        pi=[found["pi"][axis] for axis in axes],
        axis_probs=[found["axis_probs"][axis] for axis in axes],
        best_probs=[found["best_probs"][axis] for axis in axes],
        expert_losses=[found["loss"][expert_method(axis)] for axis in axes],
    )


def _prompts(run: RunDirectory) -> Any:
    return run.evaluation_folder(TEST) / "prompts.jsonl"


def _differing(ours: RunConfig, theirs: RunConfig) -> list[str]:
    """`path value` of every setting of the other run that is not ours."""
    mine, other = (_flat(config.model_dump(mode="json", exclude=set(_NOT_NAMED))) for config in (ours, theirs))
    return [f"{path} {other.get(path)}" for path in sorted(mine | other) if mine.get(path) != other.get(path)]


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
