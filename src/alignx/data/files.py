"""Rows of a local file: json, jsonl, csv or parquet, each optionally .gz; faults named by file and row."""

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

from alignx.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


def is_data_file(path: Path) -> bool:
    """Whether the name ends as a format this module reads."""
    return path.name.removesuffix(".gz").endswith(SUFFIXES)


def read_rows(path: Path) -> list[Row]:
    """All rows of a file as dictionaries.

    Raises:
        DataError: no such file, unknown format, damaged compression, wrong encoding, a malformed row, no rows.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such data file; give an existing json, jsonl, csv or parquet file (.gz allowed)")
    if not is_data_file(path):
        raise DataError(f"{path}: unknown format; expected a name ending in {', '.join(SUFFIXES)} (.gz allowed)")
    raw = _read_bytes(path)
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    rows = _parquet_rows(path, raw) if kind == "parquet" else _TEXT_READERS[kind](path, _decode(path, raw))
    if not rows:
        raise DataError(f"{path}: holds no rows; give a file with at least one")
    return rows


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")  # a byte-order mark would become part of the first column's name
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line} is not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`") from error


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno} is not JSON ({error.msg}); mend that line") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON list of objects, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {type(row).__name__}, expected an object; mend that row")
    return rows


def _jsonl_rows(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error.msg}); mend or remove that line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is {type(row).__name__}, expected an object; mend that line")
        rows.append(row)
    return rows


def _csv_rows(path: Path, text: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    rows: list[Row] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}: line {reader.line_num} has not {len(reader.fieldnames or ())} columns like the header; "
                    "quote cells that hold commas"
                )
            rows.append(dict(row))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not CSV ({error}); mend that line") from error
    return rows


def _parquet_rows(path: Path, raw: bytes) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(io.BytesIO(raw)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file ({error}); fetch it again") from error
    return rows


_TEXT_READERS = {"json": _json_rows, "jsonl": _jsonl_rows, "csv": _csv_rows}
