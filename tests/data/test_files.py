import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from alignx.data.files import read_rows
from alignx.errors import DataError

ROWS = [{"prompt": "one, two", "answer": "ä"}, {"prompt": 'say "three"\nfour', "answer": "b"}]


def _bytes(kind: str) -> bytes:
    if kind == "json":
        return json.dumps(ROWS).encode()
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
        return text.getvalue().encode()
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def _write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_format_gives_the_same_rows(tmp_path, kind, suffix):
    raw = _bytes(kind)
    path = _write(tmp_path, f"rows.{kind}{suffix}", gzip.compress(raw) if suffix else raw)
    assert read_rows(path) == ROWS


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path, kind):
    assert read_rows(_write(tmp_path, f"rows.{kind}", b"\xef\xbb\xbf" + _bytes(kind))) == ROWS


def test_windows_line_ends_and_blank_lines_are_fine_in_jsonl(tmp_path):
    assert read_rows(_write(tmp_path, "rows.jsonl", '{"a": 1}\r\n\r\n{"a": 2}\r\n')) == [{"a": 1}, {"a": 2}]


def test_a_line_separator_inside_a_string_does_not_end_a_jsonl_line(tmp_path):
    assert read_rows(_write(tmp_path, "rows.jsonl", '{"a": "x\u2028y\x85z"}\n')) == [{"a": "x\u2028y\x85z"}]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("rows.jsonl", '{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("rows.jsonl", '{"a": 1}\n\n[1]\n', "line 3 is list, expected an object"),
        ("rows.json", '[{"a": 1},\n{"a": }]', "line 2 is not JSON"),
        ("rows.json", '{"a": 1}', "expected a JSON list of objects, found dict"),
        ("rows.json", '[{"a": 1}, 3]', "row 2 is int, expected an object"),
        ("rows.csv", "a,b\n1,2\n3\n", "line 3 has not 2 columns"),
        ("rows.csv", "a,b\n1,2,3\n", "line 2 has not 2 columns"),
        ("rows.csv", 'a,b\n1,"2\n', "is not CSV"),
        ("rows.csv", "a,b\nx,caf\xe9\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("rows.jsonl", '{"a": "caf\xe9"}\n'.encode("latin-1"), "line 1 is not UTF-8"),
        ("rows.json.gz", gzip.compress(b'[{"a": 1}]' * 100)[:-20], "damaged gzip"),
        ("rows.json.gz", b'[{"a": 1}]', "damaged gzip"),
        ("rows.parquet", b"not parquet at all", "not a parquet file"),
        ("rows.json", "[]", "holds no rows"),
        ("rows.jsonl", "\n", "holds no rows"),
        ("rows.csv", "a,b\n", "holds no rows"),
        ("rows.csv", "", "holds no rows"),
        ("rows.json", "", "line 1 is not JSON"),
        ("rows.txt", "a", "unknown format"),
    ],
)
def test_a_fault_is_named_with_its_file_and_place(tmp_path, name, content, fault):
    path = _write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert fault in str(caught.value)


def test_a_damaged_parquet_footer_is_a_data_error(tmp_path):
    raw = bytearray(_bytes("parquet"))
    raw[-60:-8] = b"\xff" * 52
    path = _write(tmp_path, "rows.parquet", bytes(raw))
    with pytest.raises(DataError, match="not a parquet file"):
        read_rows(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent.json: no such data file"):
        read_rows(tmp_path / "absent.json")
