"""Where an axis's rows come from: the package's sample, a local file, or the hub."""

import random
from dataclasses import dataclass
from pathlib import Path

from alignx.config import AxisConfig
from alignx.data.example import Example
from alignx.data.files import Row, is_data_file, read_rows
from alignx.data.schemas import SCHEMAS, read_examples, with_mc_task
from alignx.errors import DataError

SAMPLE_FILES = {"alpaca": "alpaca.json", "beavertails": "beavertails.jsonl", "truthfulqa": "truthfulqa.csv"}
SAMPLE_FOLDER = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class AxisData:
    """Examples of one axis and where they came from."""

    examples: list[Example]
    source: str
    licence: str
    n_rows: int


def load_axis(axis: str, config: AxisConfig, *, data_dir: Path | None, seed: int) -> AxisData:
    """Read one axis's examples, one a prompt.

    Args:
        axis: its name.
        config: its data set, source and limits.
        data_dir: folder that relative sources lie in; None is the working directory.
        seed: draws the rows kept when `max_examples` is set.

    Raises:
        DataError: anything missing or malformed.
    """
    rows, source, licence = _rows(config, data_dir)
    n_rows = len(rows)
    if config.max_examples is not None and config.max_examples < n_rows:
        rows = random.Random(seed).sample(rows, config.max_examples)
    examples = read_examples(rows, schema=config.dataset, axis=axis, source=source)
    if config.mc_source:
        mc_path = _resolve(config.mc_source, data_dir)
        examples = with_mc_task(examples, read_rows(mc_path), source=str(mc_path))
    return AxisData(examples=examples, source=_shown(config), licence=licence, n_rows=n_rows)


def load_test_folder(axis: str, config: AxisConfig, folder: Path) -> list[Example]:
    """Every example of an axis's schema in another folder.

    The axis's own relative path is taken when the folder has it (with or without .gz), else every data file in the
    folder that holds the schema's columns.

    Raises:
        DataError: no such folder, or nothing in it has the axis's schema.
    """
    if not folder.is_dir():
        raise DataError(f"--test-data {folder}: no such folder; give a folder with files in the training schemas")
    files = _twins(folder, config.source) or _by_columns(folder, config.dataset)
    if not files:
        columns = ", ".join(SCHEMAS[config.dataset].columns)
        raise DataError(
            f"--test-data {folder}: no file for axis `{axis}`; put `{config.source or config.dataset}` there, or any "
            f"json, jsonl, csv or parquet file with the columns {columns}"
        )
    rows = [row for path in files for row in read_rows(path)]
    source = ", ".join(map(str, files))
    examples = read_examples(rows, schema=config.dataset, axis=axis, source=source)
    mc_files = _twins(folder, config.mc_source) if config.mc_source else []
    if mc_files:
        examples = with_mc_task(examples, read_rows(mc_files[0]), source=str(mc_files[0]))
    return examples


def _twins(folder: Path, source: str) -> list[Path]:
    if not source or Path(source).is_absolute():
        return []
    plain = source.removesuffix(".gz")
    return [folder / name for name in (plain, f"{plain}.gz") if (folder / name).is_file()][:1]


def _by_columns(folder: Path, schema: str) -> list[Path]:
    columns = set(SCHEMAS[schema].columns)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_data_file(path))
    return [path for path in files if columns <= read_rows(path)[0].keys()]


def _rows(config: AxisConfig, data_dir: Path | None) -> tuple[list[Row], str, str]:
    schema = SCHEMAS[config.dataset]
    if config.source == "sample":
        path = SAMPLE_FOLDER / SAMPLE_FILES[config.dataset]
        return read_rows(path), str(path), "Apache-2.0"
    if not config.source:
        return _hub_rows(*schema.hub), schema.hub[0], schema.licence
    path = _resolve(config.source, data_dir)
    if not path.exists() and config.source.count("/") == 1 and not is_data_file(path):
        return _hub_rows(config.source, schema.hub[1], schema.hub[2]), config.source, schema.licence
    return read_rows(path), str(path), schema.licence


def _resolve(source: str, data_dir: Path | None) -> Path:
    path = Path(source).expanduser()
    if path.is_absolute():
        return path
    return (data_dir or Path()) / path


def _shown(config: AxisConfig) -> str:
    """The source as written in the config: artifacts hold no path of the machine that made them."""
    return config.source or SCHEMAS[config.dataset].hub[0]


def _hub_rows(name: str, configuration: str | None, split: str) -> list[Row]:
    import datasets

    try:
        rows = datasets.load_dataset(name, configuration, split=split)
    except Exception as error:  # the hub's own errors differ by version and by what failed
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{name}: cannot be fetched from the hub ({reason}); check the network, or give a local file, e.g. "
            "--dataset alpaca=PATH or `source:` with --data-dir"
        ) from error
    renamed = {
        "question": "Question",
        "best_answer": "Best Answer",
        "correct_answers": "Correct Answers",
        "incorrect_answers": "Incorrect Answers",
    }
    if name == SCHEMAS["truthfulqa"].hub[0]:
        return [{renamed.get(key, key): value for key, value in row.items()} for row in rows]
    return [dict(row) for row in rows]
