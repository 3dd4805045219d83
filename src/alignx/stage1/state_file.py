"""Hidden states on disk: a pass over the prompts writes them once, and what follows reads them in chunks.

Memory does not grow with the number of prompts, and no prompt goes through the model twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_CHUNK_ROWS = 512


@dataclass(frozen=True)
class StateFile:
    """States of prompts in the order in which they were written.

    Attributes:
        path: raw float32 numbers, row after row.
        rows: the prompts' row numbers, in the file's order.
        shape: (depths, hidden) of one prompt's states.
    """

    path: Path
    rows: list[int]
    shape: tuple[int, int]

    @classmethod
    def write(cls, path: Path, batches: Iterable[tuple[list[int], Tensor]]) -> "StateFile":
        """Write batches of row numbers and (b, depths, hidden) states as they come; one is in memory at a time.

        Raises:
            OSError: the file cannot be written; it names the file.
        """
        rows: list[int] = []
        shape = (0, 0)
        try:
            with path.open("wb") as file:
                for numbers, states in batches:
                    rows += numbers
                    shape = (states.shape[1], states.shape[2])
                    file.write(states.float().contiguous().numpy().tobytes())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return cls(path, rows, shape)

    def batches(self) -> Iterator[tuple[list[int], Tensor]]:
        """The same rows and states, in chunks of the file's order; any number of times."""
        row_bytes = 4 * self.shape[0] * self.shape[1]
        with self.path.open("rb") as file:
            for start in range(0, len(self.rows), _CHUNK_ROWS):
                rows = self.rows[start : start + _CHUNK_ROWS]
                numbers = bytearray(file.read(len(rows) * row_bytes))
                yield rows, torch.frombuffer(numbers, dtype=torch.float32).view(len(rows), *self.shape)

    def states(self) -> Iterator[Tensor]:
        """The states alone, (b, depths, hidden) a chunk."""
        return (states for _, states in self.batches())
