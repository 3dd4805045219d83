"""Tensor files made to do harm: one clear line, whatever their header says."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from alignx.errors import ArtifactError
from alignx.runs.files import read_tensors


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


_ONE = json.dumps(_tensor())
HEADERS: dict[str, tuple[Any, int]] = {
    "overlapping tensors": ({"a": _tensor(), "b": _tensor()}, 8),
    "partly overlapping tensors": ({"a": _tensor(), "b": _tensor(data_offsets=[4, 12])}, 12),
    "out of range": ({"a": _tensor(data_offsets=[0, 800])}, 8),
    "negative offset": ({"a": _tensor(data_offsets=[-8, 0])}, 8),
    "reversed offsets": ({"a": _tensor(data_offsets=[8, 0])}, 8),
    "a hole before the first": ({"a": _tensor(data_offsets=[8, 16])}, 16),
    "bytes after the last": ({"a": _tensor()}, 80),
    "a size that overflows": ({"a": _tensor(shape=[2**62, 4])}, 8),
    "a name given twice": (f'{{"a": {_ONE}, "a": {_ONE}}}', 8),
    "a second tensor of one name": (f'{{"a": {_ONE.replace("[0, 8]", "[8, 16]")}, "a": {_ONE}}}', 8),
    "deep nesting": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", 0),
    "an array": ([], 0),
    "no header": ("", 0),
    "no JSON": ("{", 0),
    "an unknown dtype": ({"a": _tensor(dtype="Q4")}, 8),
    "a dtype that is not computed with": ({"a": _tensor(dtype="F8_E8M0", shape=[8])}, 8),
    "a packed dtype": ({"a": _tensor(dtype="F4", shape=[16])}, 8),
    "metadata that are no text": ({"__metadata__": {"a": 3}, "a": _tensor()}, 8),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_one_clear_line(tmp_path: Path, case: str) -> None:
    header, n_bytes = HEADERS[case]
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(n_bytes))
    with pytest.raises(ArtifactError, match="hostile.safetensors: ") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 99_000_000, 10**9])
def test_a_huge_header_length_reserves_no_memory(tmp_path: Path, length: int) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ArtifactError, match="hostile.safetensors: damaged"):
        read_tensors(path)


def test_a_long_name_does_not_fill_the_screen(tmp_path: Path) -> None:
    text = json.dumps({"a" * 100_000: _tensor()}).encode()
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<ff", float("nan"), 1.0))
    with pytest.raises(ArtifactError, match="holds NaN") as caught:
        read_tensors(path)
    assert len(str(caught.value)) < 500
