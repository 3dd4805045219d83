"""Sets larger than memory: the same rows as otherwise, and memory for what is kept alone."""

import csv
import gzip
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from alignx.config import AxisConfig
from alignx.data.files import iterate_rows
from alignx.data.sources import load_axis

N_ROWS = 20_000
COLUMNS = {"prompt": "q", "response": "a"}


def _rows():
    return ({"q": f"prompt {number}", "a": "answer " * 60} for number in range(N_ROWS))


def _write(folder, name):
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(_rows())), path, row_group_size=1000)
        return path
    with gzip.open(path, "wt") if name.endswith(".gz") else path.open("w") as file:
        if "csv" in name:
            writer = csv.DictWriter(file, ["q", "a"])
            writer.writeheader()
            writer.writerows(_rows())
        else:
            file.writelines(json.dumps(row) + "\n" for row in _rows())
    return path


@pytest.fixture(scope="module", params=["big.jsonl", "big.jsonl.gz", "big.csv", "big.csv.gz", "big.parquet"])
def big(request, tmp_path_factory):
    """A file of 8 MB of rows in each format that is read row by row."""
    return _write(tmp_path_factory.mktemp("big"), request.param)


def _load(path, **more):
    config = AxisConfig(dataset="pairs", source=str(path), columns=COLUMNS, **more)
    return load_axis("mine", config, data_dir=None, seed=0)


def test_memory_holds_what_is_kept_and_not_the_file(big):
    _load(big, max_examples=1)  # imports, which stay
    tracemalloc.start()
    data = _load(big, max_examples=100, streaming=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(data.examples), data.n_rows) == (100, N_ROWS)
    # 100 rows are 40 kB. Parquet's pages are decoded 1,024 rows at a time.
    assert peak < (2_000_000 if big.suffix == ".parquet" else 400_000)


def test_streaming_draws_the_rows_that_reading_draws(big):
    streamed, read = (_load(big, max_examples=50, streaming=streaming) for streaming in (True, False))
    assert streamed.examples == read.examples


def test_a_row_that_cannot_be_read_is_named_by_its_place_in_the_file_and_not_in_the_draw(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": "p", "a": n if n == 900 else "x"}) + "\n" for n in range(1, 1001)))
    with pytest.raises(ValueError, match="row 900: `a` is int|row 900: `response` is int"):
        _load(path, max_examples=999)


def test_rows_before_a_fault_come_out_before_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    rows = iterate_rows(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        next(rows)
