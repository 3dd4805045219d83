"""The axes' data into a run directory: read, freed of each other's prompts, split, kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignx.config import AxisConfig, RunConfig
from alignx.data.example import Example
from alignx.data.sources import AxisData, SetData, load_axis, without
from alignx.data.splits import SPLITS, AxisSplits, split_examples, split_sets
from alignx.data.tally import dropped_line
from alignx.errors import ArtifactError, DataError
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
    n_usable = len(data.examples)
    data = _without_taken(data, taken)
    for part in data.sets:
        notice(read_line(axis, _set_record(part)))
    splits = _split(axis, config, data, salt)
    check_metric_has_answers(axis, config, splits.test)
    record = {
        "source": data.source,
        "licence": data.licence,
        "rows_read": sum(part.tally.rows for part in data.sets),
        "usable_prompts": n_usable,
        "shared_with_other_axes": n_usable - len(data.examples),
        "unused_prompts": len(data.examples) - sum(len(splits[split]) for split in SPLITS),
        "sets": [{**_set_record(part), "used": _used(part, splits)} for part in data.sets],
        "fingerprint": fingerprint([asdict(example) for split in SPLITS for example in splits[split]]),
        "splits": {split: _hashes(splits[split]) for split in SPLITS},
    }
    return PreparedAxis(splits, record)


def read_line(axis: str, record: Mapping[str, Any]) -> str:
    """What was read of one set, kept and dropped, in one line.

    Args:
        axis: the axis.
        record: the set's entry in `splits.json`.
    """
    prompts, answers = record["prompts"], record["answers"]
    of = f" of {record['rows_in_source']} (drawn by seed)" if record["rows_in_source"] > record["rows_read"] else ""
    kind = "safe answers" if record["dataset"] == "beavertails" else "answers"
    kept = f"{answers} {kind} to {prompts} prompts" if answers > prompts else f"{prompts} prompts"
    line = f"{axis}: {record['rows_read']} rows read{of} from {record['source']}; kept {kept}"
    if record["shortened"]:
        line += f" ({record['shortened']} conversations count with their first exchange only)"
    dropped = dropped_line(record["dropped"])
    return f"{line}; dropped {dropped}" if dropped else f"{line}; dropped nothing"


def check_metric_has_answers(axis: str, config: AxisConfig, test: Sequence[Example]) -> None:
    """Refuse a figure that no test prompt can give, before anything is trained.

    Raises:
        DataError: the axis's `metric` needs answers that none of its test prompts has.
    """
    needs = {
        "safe_preferred": ("a worse answer", lambda example: bool(example.incorrect) and not example.mc1),
        "mc1": ("a false answer to choose from", lambda example: len(example.mc1) > 1),
        "mc2": ("a false answer to choose from", lambda example: bool(example.mc1 and example.incorrect)),
    }
    if config.metric in needs:
        what, has = needs[config.metric]
        if not any(map(has, test)):
            raise DataError(
                f"axis `{axis}`: `metric: {config.metric}` needs prompts with {what}, and none of its {len(test)} test "
                "prompts has one; give data with such answers, or `metric: win_rate`"
            )


def _without_taken(data: AxisData, taken: set[str]) -> AxisData:
    sets = []
    for part in data.sets:
        own = without(part.examples, taken)
        part.tally.drop("in_another_axis", len(part.examples) - len(own))
        sets.append(replace(part, examples=own))
    return AxisData(sets)


def _split(axis: str, config: AxisConfig, data: AxisData, salt: str) -> AxisSplits:
    weights = [part.config.weight for part in data.sets if part.config.weight is not None]
    if not weights:
        return split_examples(data.examples, config.splits, salt=salt, source=f"axis `{axis}` ({data.source})")
    return split_sets(
        [part.examples for part in data.sets],
        weights,
        config.splits,
        salt=salt,
        sources=[f"axis `{axis}`, set {part.name} at weight {part.config.weight:g}" for part in data.sets],
    )


def _set_record(part: SetData) -> dict[str, Any]:
    return {
        "dataset": part.config.dataset,
        "source": part.name,
        "weight": part.config.weight,
        "rows_in_source": part.rows_in_source,
        "rows_read": part.tally.rows,
        "prompts": len(part.examples),
        # Several true answers of one TruthfulQA row are one target.
        "answers": sum(1 if example.mc1 else max(1, len(example.correct)) for example in part.examples),
        "dropped": dict(part.tally.dropped),
        "shortened": part.tally.shortened,
    }


def _used(part: SetData, splits: AxisSplits) -> dict[str, int]:
    own = {example.prompt_hash for example in part.examples}
    return {split: sum(example.prompt_hash in own for example in splits[split]) for split in SPLITS}


def _hashes(examples: Sequence[Example]) -> list[str]:
    return [example.prompt_hash for example in examples]


def _examples_path(run: RunDirectory, axis: str) -> Path:
    return run.root / "data" / f"{axis}.jsonl"
