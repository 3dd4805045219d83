"""Where this process stands among those of its job; reads the environment alone, so that importing it is quick."""

import os
from collections.abc import Sequence

# The names under which torchrun, MPICH, Open MPI and MVAPICH tell a process where it stands, as Accelerate reads them.
_WORLD = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def world() -> int:
    """Processes of this job."""
    return _told(_WORLD, 1)


def rank() -> int:
    """This process's number, from 0."""
    return _told(_RANK, 0)


def is_main() -> bool:
    """Whether this is the process that writes and reports."""
    return rank() == 0


def _told(names: Sequence[str], otherwise: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), otherwise)
