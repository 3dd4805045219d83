"""One axis's data into a run directory: read, freed of other axes' prompts, split, kept."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from alignx.config import AxisConfig
from alignx.data.example import Example
from alignx.data.sources import load_axis
from alignx.data.splits import SPLITS, AxisSplits, split_examples
from alignx.errors import ArtifactError
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json, read_jsonl, write_json, write_jsonl


def prepare_axis(
    run: RunDirectory, axis: str, config: AxisConfig, *, salt: str, seed: int, data_dir: Path | None
) -> AxisSplits:
    """Read, split and keep one axis's examples; prompts that another axis of the run holds are dropped and counted.

    Raises:
        DataError: see `load_axis` and `split_examples`.
    """
    data = load_axis(axis, config, data_dir=data_dir, seed=seed)
    document = read_json(run.splits_path) if run.splits_path.is_file() else {"salt": salt, "axes": {}}
    if document["salt"] != salt:
        document = {"salt": salt, "axes": {}}
    taken = {
        prompt_hash
        for other, record in document["axes"].items()
        if other != axis
        for split in SPLITS
        for prompt_hash in record["splits"][split]
    }
    examples = [example for example in data.examples if example.prompt_hash not in taken]
    n_shared = len(data.examples) - len(examples)
    if n_shared:
        notice(f"{axis}: left out {n_shared} prompts that another axis has")
    splits = split_examples(examples, config.splits, salt=salt, source=f"axis `{axis}` ({data.source})")
    hashes = {split: [example.prompt_hash for example in splits[split]] for split in SPLITS}
    record = {
        "source": data.source,
        "licence": data.licence,
        "rows_read": data.n_rows,
        "usable_prompts": len(data.examples),
        "shared_with_other_axes": n_shared,
        "fingerprint": fingerprint([asdict(example) for split in SPLITS for example in splits[split]]),
        "splits": hashes,
    }
    if document["axes"].get(axis) != record or not _examples_path(run, axis).is_file():
        rows = [{"split": split, **asdict(example)} for split in SPLITS for example in splits[split]]
        write_jsonl(_examples_path(run, axis), rows)
        document["axes"][axis] = record
        write_json(run.splits_path, document)
    return splits


def forget_other_axes(run: RunDirectory, axes: Iterable[str]) -> None:
    """Drop from `splits.json` the axes that a config no longer has."""
    if run.splits_path.is_file():
        document = read_json(run.splits_path)
        kept = {axis: record for axis, record in document["axes"].items() if axis in set(axes)}
        if kept != document["axes"]:
            write_json(run.splits_path, {**document, "axes": kept})


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
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: line {number} is damaged ({error}); run `alignx run` again") from error
    return AxisSplits(**by_split)


def data_fingerprint(run: RunDirectory, axis: str) -> str:
    """Fingerprint of an axis's prepared examples."""
    return str(read_json(run.splits_path)["axes"][axis]["fingerprint"])


def _examples_path(run: RunDirectory, axis: str) -> Path:
    return run.root / "data" / f"{axis}.jsonl"
