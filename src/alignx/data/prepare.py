"""The axes' data into a run directory: read, freed of each other's prompts, split, kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignx.config import AxisConfig, RunConfig
from alignx.data.example import Example
from alignx.data.sources import load_axis
from alignx.data.splits import SPLITS, AxisSplits, split_examples
from alignx.errors import ArtifactError
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json, read_jsonl, write_json, write_jsonl


@dataclass(frozen=True)
class PreparedAxis:
    """One axis's splits, not written yet, and its entry in `splits.json`."""

    splits: AxisSplits
    record: dict[str, Any]


def prepare_axes(
    config: RunConfig, *, data_dir: Path | None, kept: Mapping[str, PreparedAxis] | None = None
) -> dict[str, PreparedAxis]:
    """Read and split every axis, in the config's order; writes nothing.

    A prompt that an earlier axis has is dropped from a later one, and counted.

    Args:
        config: the run's config.
        data_dir: folder of relative sources.
        kept: axes that are taken as they are instead of being read again.

    Raises:
        DataError: see `load_axis` and `split_examples`.
    """
    kept = kept or {}
    taken = {prompt for axis in kept.values() for split in SPLITS for prompt in axis.record["splits"][split]}
    prepared: dict[str, PreparedAxis] = {}
    for axis, axis_config in config.axes.items():
        if axis in kept:
            prepared[axis] = kept[axis]
            continue
        prepared[axis] = _prepare(axis, axis_config, taken, salt=config.split_salt, seed=config.seed, data_dir=data_dir)
        taken |= {prompt for split in SPLITS for prompt in prepared[axis].record["splits"][split]}
    return prepared


def write_axes(run: RunDirectory, prepared: Mapping[str, PreparedAxis], *, salt: str) -> None:
    """Keep prepared axes: `splits.json`, and the examples in `data/<axis>.jsonl`."""
    document = {"salt": salt, "axes": {axis: data.record for axis, data in prepared.items()}}
    paths = [run.splits_path, *(_examples_path(run, axis) for axis in prepared)]
    if run.is_done("data", document, *paths):
        return
    for axis, axis_data in prepared.items():
        rows = [{"split": split, **asdict(example)} for split in SPLITS for example in axis_data.splits[split]]
        write_jsonl(_examples_path(run, axis), rows)
    write_json(run.splits_path, document)
    run.mark_done("data", document, *paths)


def read_prepared(run: RunDirectory, axis: str) -> PreparedAxis:
    """An axis as the run keeps it.

    Raises:
        ArtifactError: the axis was not prepared, or its file is damaged.
    """
    return PreparedAxis(read_splits(run, axis), _record(run, axis))


def read_splits(run: RunDirectory, axis: str) -> AxisSplits:
    """An axis's examples as the run keeps them.

    Raises:
        ArtifactError: the axis was not prepared, or its file is damaged.
    """
    by_split: dict[str, list[Example]] = {split: [] for split in SPLITS}
    path = _examples_path(run, axis)
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            split = row.pop("split")
            lists = {key: tuple(row[key]) for key in ("correct", "incorrect", "mc1")}
            by_split[split].append(Example(**{**row, **lists}))
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: line {number} is damaged ({error}); run `alignx run` again") from error
    run.check("data")  # last: a line that cannot be read is better named
    return AxisSplits(**by_split)


def data_fingerprint(run: RunDirectory, axis: str) -> str:
    """Fingerprint of an axis's prepared examples."""
    run.check("data")
    return str(_record(run, axis)["fingerprint"])


def _record(run: RunDirectory, axis: str) -> dict[str, Any]:
    """An axis's entry in `splits.json`."""
    try:
        record: dict[str, Any] = read_json(run.splits_path)["axes"][axis]
        _ = record["fingerprint"], record["splits"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{run.splits_path}: damaged (no {error}); run `alignx run` again") from error
    return record


def _prepare(
    axis: str, config: AxisConfig, taken: set[str], *, salt: str, seed: int, data_dir: Path | None
) -> PreparedAxis:
    data = load_axis(axis, config, data_dir=data_dir, seed=seed)
    examples = [example for example in data.examples if example.prompt_hash not in taken]
    n_shared = len(data.examples) - len(examples)
    if n_shared:
        notice(f"{axis}: left out {n_shared} prompts that another axis has")
    splits = split_examples(examples, config.splits, salt=salt, source=f"axis `{axis}` ({data.source})")
    record = {
        "source": data.source,
        "licence": data.licence,
        "rows_read": data.n_rows,
        "usable_prompts": len(data.examples),
        "shared_with_other_axes": n_shared,
        "fingerprint": fingerprint([asdict(example) for split in SPLITS for example in splits[split]]),
        "splits": {split: _hashes(splits[split]) for split in SPLITS},
    }
    return PreparedAxis(splits, record)


def _hashes(examples: Sequence[Example]) -> list[str]:
    return [example.prompt_hash for example in examples]


def _examples_path(run: RunDirectory, axis: str) -> Path:
    return run.root / "data" / f"{axis}.jsonl"
