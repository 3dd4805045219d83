"""A matrix written row by row as safetensors, so that it need not fit into memory on its way to the disk."""

import json
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from alignx.runs.files import write_whole


def write_matrix(path: Path, name: str, shape: tuple[int, int], batches: Iterable[tuple[list[int], Tensor]]) -> None:
    """Write one float32 matrix, to the very bytes that `write_tensors` writes for it.

    Args:
        path: the file.
        name: the matrix's name in it.
        shape: (n, width).
        batches: row numbers and their (b, width) values, in any order; together every row once.

    Raises:
        ValueError: a row is missing, comes twice, or has another width.
    """
    write_whole(path, lambda temporary: _fill(temporary, name, shape, batches))


def _fill(path: Path, name: str, shape: tuple[int, int], batches: Iterable[tuple[list[int], Tensor]]) -> None:
    n, width = shape
    header = _header(name, shape)
    written = bytearray(n)
    with path.open("wb") as file:
        file.write(header)
        for rows, values in batches:
            if values.shape != (len(rows), width):
                raise ValueError(f"`{name}`: {len(rows)} rows of {width} expected, got {tuple(values.shape)}")
            for row, numbers in zip(rows, values.detach().float().cpu().contiguous().numpy(), strict=True):
                if not 0 <= row < n or written[row]:
                    raise ValueError(f"`{name}`: row {row} of {n} came twice or does not exist")
                written[row] = 1
                file.seek(len(header) + 4 * width * row)
                file.write(numbers.tobytes())
    if sum(written) != n:
        raise ValueError(f"`{name}`: row {written.index(0)} of {n} was never given")


def _header(name: str, shape: tuple[int, int]) -> bytes:
    """The file's first bytes: the length of what follows, then JSON, filled up with spaces to eight bytes."""
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * shape[0] * shape[1]]}
    text = json.dumps({"__metadata__": {"format": "pt"}, name: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
