import pytest
import torch

from alignx.errors import ArtifactError
from alignx.runs.files import (
    read_json,
    read_jsonl,
    read_tensors,
    write_json,
    write_jsonl,
    write_tensors,
    write_text,
    write_whole,
)


def test_a_failed_write_leaves_nothing(tmp_path):
    def write(path):
        path.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "file.txt", write)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_others_may_read(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "é")
    assert path.read_text(encoding="utf-8") == "é"
    assert path.stat().st_mode & 0o777 == 0o644


def test_json_floats_come_back_to_the_bit(tmp_path):
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    write_json(tmp_path / "x.json", values)
    assert [value.hex() for value in read_json(tmp_path / "x.json")] == [value.hex() for value in values]


@pytest.mark.parametrize("text", ["plain", "two\nlines", "\u2028 \u2029 \x85 \x0b \x0c \x1c", "é 漢 🙂"])
def test_jsonl_comes_back(tmp_path, text):
    rows = [{"text": text}, {"text": "next"}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert read_jsonl(tmp_path / "x.jsonl") == rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_tensors_come_back_to_the_bit(tmp_path, dtype):
    tensors = {"a": torch.arange(6).view(2, 3).to(dtype).T, "empty": torch.zeros(0, dtype=dtype)}
    write_tensors(tmp_path / "x.safetensors", tensors)
    found = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(found[name].dtype == dtype and torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("read", [read_json, read_jsonl, read_tensors])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ArtifactError, match="absent.file"):
        read(tmp_path / "absent.file")


@pytest.mark.parametrize("read", [read_json, read_jsonl, read_tensors])
@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe\x00 not text", b"\x80\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file_is_named(tmp_path, read, content):
    path = tmp_path / "damaged.file"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged.file"):
        read(path)


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ArtifactError, match="x.jsonl: line 2 is damaged"):
        read_jsonl(path)


def test_a_truncated_tensor_file_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="x.safetensors: damaged"):
        read_tensors(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named_with_its_file(tmp_path, value):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"fine": torch.ones(2), "spoilt": torch.tensor([1.0, value])})
    with pytest.raises(ArtifactError, match="x.safetensors: tensor `spoilt` holds NaN or infinity"):
        read_tensors(path)
