"""Rows of a local file: json, jsonl, csv or parquet, each optionally .gz; faults named by file and row.

Rows come one at a time, so a file need not fit in memory: jsonl and csv line by line, parquet batch by batch. Only a
json list and a parquet file inside .gz are held whole.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from alignx.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
# Rows of a parquet file held at a time.
_BATCH = 1024


def is_data_file(path: Path) -> bool:
    """Whether the name ends as a format this module reads."""
    return path.name.removesuffix(".gz").endswith(SUFFIXES)


def read_rows(path: Path) -> list[Row]:
    """All rows of a file as dictionaries.

    Raises:
        DataError: see `iterate_rows`.
    """
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[Row]:
    """The rows of a file as dictionaries, one at a time and in its order.

    Raises:
        DataError: no such file, unknown format, damaged compression, wrong encoding, a malformed row, no rows.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such data file; give an existing json, jsonl, csv or parquet file (.gz allowed)")
    if not is_data_file(path):
        raise DataError(f"{path}: unknown format; expected a name ending in {', '.join(SUFFIXES)} (.gz allowed)")
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    n_rows = 0
    try:
        for row in _parquet_rows(path) if kind == "parquet" else _TEXT_READERS[kind](path, _lines(path)):
            n_rows += 1
            yield row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if not n_rows:
        raise DataError(f"{path}: holds no rows; give a file with at least one")


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends; only a newline ends one, for text may hold the rarer separators."""
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                # A byte-order mark would become part of the first column's name.
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: line {number} is not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`"
                ) from error


def _json_rows(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    try:
        rows = json.loads("".join(lines))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno} is not JSON ({error.msg}); mend that line") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON list of objects, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {type(row).__name__}, expected an object; mend that row")
        yield row


def _jsonl_rows(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error.msg}); mend or remove that line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is {type(row).__name__}, expected an object; mend that line")
        yield row


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}: line {reader.line_num} has not {len(reader.fieldnames or ())} columns like the header; "
                    "quote cells that hold commas"
                )
            yield dict(row)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not CSV ({error}); mend that line") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    source = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file ({error}); fetch it again") from error


_TEXT_READERS = {"json": _json_rows, "jsonl": _jsonl_rows, "csv": _csv_rows}
