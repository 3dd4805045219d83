"""One job on several processes or machines, as `accelerate launch` starts them.

Every process runs the same code on the same inputs in the same order; the main one writes files. What is spread over
processes (forward passes) is gathered again, so that all go on from the same values.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


def world() -> int:
    """Processes of this job."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes and reports."""
    return rank() == 0


def device() -> torch.device:
    """Where this process computes: its own GPU, or the processor."""
    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def wait() -> None:
    """Return when all processes have come here."""
    if world() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """Every world-th item, from this process's number on."""
    return items[rank() :: world()]


def gather(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in the order of their numbers; every process gets all of them."""
    if world() == 1:
        return list(items)
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState()  # joins the process group
    gathered: list[Any] = gather_object(list(items))
    return gathered
