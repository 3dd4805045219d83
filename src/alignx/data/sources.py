"""Where an axis's rows come from: the package's sample, local files, or the hub; one set or several."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from alignx.config import AxisConfig, SourceConfig
from alignx.data.draw import draw_rows
from alignx.data.example import Example
from alignx.data.files import Row, is_data_file, iterate_rows, read_rows
from alignx.data.hub import iterate_hub_rows
from alignx.data.schemas import SCHEMAS, read_numbered, required_columns, with_mc_task
from alignx.data.tally import Tally
from alignx.errors import DataError

SAMPLE_FILES = {
    "alpaca": "alpaca.json",
    "beavertails": "beavertails.jsonl",
    "truthfulqa": "truthfulqa.csv",
    "pairs": "concise.jsonl",
}
SAMPLE_FOLDER = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class SetData:
    """Examples of one set.

    Attributes:
        config: the set, as the config describes it.
        examples: one a prompt; no prompt of an earlier set of the axis.
        licence: licence of the data.
        rows_in_source: rows that the set has.
        tally: what was read of them, and what was dropped.
    """

    config: SourceConfig
    examples: list[Example]
    licence: str
    rows_in_source: int
    tally: Tally

    @property
    def name(self) -> str:
        """The source as written in the config: artifacts hold no path of the machine that made them."""
        return self.config.source or SCHEMAS[self.config.dataset].hub[0]


@dataclass(frozen=True)
class AxisData:
    """Examples of one axis and where they came from, set by set."""

    sets: list[SetData]

    @property
    def examples(self) -> list[Example]:
        return [example for part in self.sets for example in part.examples]

    @property
    def source(self) -> str:
        return ", ".join(part.name for part in self.sets)

    @property
    def licence(self) -> str:
        return ", ".join(dict.fromkeys(part.licence for part in self.sets))

    @property
    def n_rows(self) -> int:
        """Rows that the sets have, all together."""
        return sum(part.rows_in_source for part in self.sets)


def load_axis(axis: str, config: AxisConfig, *, data_dir: Path | None, seed: int) -> AxisData:
    """Read one axis's examples, one a prompt; a prompt that several sets have stays with the first.

    Args:
        axis: its name.
        config: its sets and their limits.
        data_dir: folder that relative sources lie in; None is the working directory.
        seed: draws the rows kept when `max_examples` is set.

    Raises:
        DataError: anything missing or malformed.
    """
    sets: list[SetData] = []
    seen: set[str] = set()
    for set_config in config.sets:
        found = _load_set(axis, set_config, data_dir, seed)
        own = without(found.examples, seen)
        found.tally.drop("in_another_set", len(found.examples) - len(own))
        seen |= {example.prompt_hash for example in own}
        sets.append(replace(found, examples=own))
    return AxisData(sets)


def without(examples: Iterable[Example], prompts: set[str]) -> list[Example]:
    """Examples whose prompt is none of these (hashes)."""
    return [example for example in examples if example.prompt_hash not in prompts]


def load_test_folder(axis: str, config: AxisConfig, folder: Path) -> list[Example]:
    """Every example of an axis's schemas in another folder.

    A set's own relative path is taken when the folder has it (with or without .gz), else every data file in the
    folder that holds the set's columns.

    Raises:
        DataError: no such folder, or nothing in it has one of the axis's schemas.
    """
    if not folder.is_dir():
        raise DataError(f"--test-data {folder}: no such folder; give a folder with files in the training schemas")
    examples: list[Example] = []
    for one in config.sets:
        examples += without(_test_set(axis, one, folder), {example.prompt_hash for example in examples})
    if not examples:
        first = config.sets[0]
        columns = ", ".join(required_columns(first.dataset, first.columns))
        raise DataError(
            f"--test-data {folder}: no file for axis `{axis}`; put `{first.source or first.dataset}` there, or any "
            f"json, jsonl, csv or parquet file with the columns {columns}"
        )
    return examples


def _test_set(axis: str, config: SourceConfig, folder: Path) -> list[Example]:
    files = _twins(folder, config.source) or _by_columns(folder, config)
    if not files:
        return []
    rows = chain.from_iterable(map(iterate_rows, files))
    examples = _examples(axis, config, enumerate(rows, start=1), ", ".join(map(str, files)), Tally())
    mc_files = _twins(folder, config.mc_source) if config.mc_source else []
    return with_mc_task(examples, read_rows(mc_files[0]), source=str(mc_files[0])) if mc_files else examples


def _twins(folder: Path, source: str) -> list[Path]:
    if not source or Path(source).is_absolute():
        return []
    plain = source.removesuffix(".gz")
    return [folder / name for name in (plain, f"{plain}.gz") if (folder / name).is_file()][:1]


def _by_columns(folder: Path, config: SourceConfig) -> list[Path]:
    columns = set(required_columns(config.dataset, config.columns))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_data_file(path))
    return [path for path in files if columns <= next(iterate_rows(path)).keys()]


def _load_set(axis: str, config: SourceConfig, data_dir: Path | None, seed: int) -> SetData:
    rows, source, licence = _rows(config, data_dir)
    tally = Tally()
    if config.max_examples is None:
        examples = _examples(axis, config, enumerate(rows, start=1), source, tally)
        rows_in_source = tally.rows
    else:
        drawn, rows_in_source = draw_rows(rows, config.max_examples, seed=seed)
        examples = _examples(axis, config, drawn, source, tally)
    if config.mc_source:
        mc_path = _resolve(config.mc_source, data_dir)
        examples = with_mc_task(examples, read_rows(mc_path), source=str(mc_path))
    return SetData(config, examples, licence, rows_in_source, tally)


def _examples(
    axis: str, config: SourceConfig, rows: Iterable[tuple[int, Row]], source: str, tally: Tally
) -> list[Example]:
    return read_numbered(rows, schema=config.dataset, axis=axis, source=source, columns=config.columns, tally=tally)


def _rows(config: SourceConfig, data_dir: Path | None) -> tuple[Iterable[Row], str, str]:
    """Rows, what messages call their origin, and their licence."""
    schema = SCHEMAS[config.dataset]
    name, configuration, split = schema.hub
    if config.source == "sample":
        path = SAMPLE_FOLDER / SAMPLE_FILES[config.dataset]
        return iterate_rows(path), str(path), "Apache-2.0"
    if not config.source:
        return iterate_hub_rows(name, configuration, split, streaming=config.streaming), name, schema.licence
    path = _resolve(config.source, data_dir)
    if not path.exists() and config.source.count("/") == 1 and not is_data_file(path):
        rows = iterate_hub_rows(config.source, configuration, split, streaming=config.streaming)
        return rows, config.source, schema.licence
    return iterate_rows(path), str(path), schema.licence


def _resolve(source: str, data_dir: Path | None) -> Path:
    path = Path(source).expanduser()
    if path.is_absolute():
        return path
    return (data_dir or Path()) / path
