"""One job on several processes or machines, as `accelerate launch` starts them.

Every process runs the same code on the same inputs in the same order; the main one decides what is there already and
writes files. What is spread over processes (forward passes) is gathered again, so that all go on from the same values.
"""

import gc
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from alignx.errors import AlignXError, ConfigError
from alignx.ranks import is_main, rank, world

__all__ = ["device", "from_main", "gather", "is_main", "join", "leave", "own_share", "rank", "world"]

Item = TypeVar("Item")


def device() -> torch.device:
    """Where this process computes: its own GPU, or the processor."""
    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def from_main(make: Callable[[], Item]) -> Item:
    """What `make` returns on the main process, on every process; only that one calls it.

    No process returns before all have come here, so what the main one reads or writes inside is settled for all. An
    error inside is raised on all of them: none waits for one that is gone.
    """
    if world() == 1:
        return make()
    made: list[tuple[Any, Exception | None]] = [(None, None)]
    if is_main():
        try:
            made = [(make(), None)]
        except Exception as error:
            made = [(None, _sendable(error))]
    value, failure = gather(made)[0]
    if failure is not None:
        failure.is_mains = True  # type: ignore[attr-defined]  # that process says it; the others need not
        raise failure
    result: Item = value
    return result


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """Every world-th item, from this process's number on."""
    return items[rank() :: world()]


def gather(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in the order of their numbers; every process gets all of them."""
    if world() == 1:
        return list(items)
    from accelerate.utils import gather_object

    join()
    gathered: list[Any] = gather_object(list(items))
    return gathered


def join() -> Any:
    """This process's Accelerate state, in the job's process group.

    Whoever is first must say that there is no GPU, or Accelerate joins no group.

    Raises:
        ConfigError: the launch config asks for DeepSpeed, which is not installed.
    """
    from accelerate import PartialState

    try:
        return PartialState(cpu=device().type == "cpu")
    except ImportError as error:
        raise ConfigError(
            f"Accelerate cannot start this job ({error}); install what it names, e.g. `pip install deepspeed`, or take "
            "another config of configs/accelerate"
        ) from error


def leave() -> None:
    """Close the process group, where there is one; the job is done on this process, and is waited for on the others.

    A thread of the group that still holds a tensor when the interpreter ends kills the process (SIGABRT). So nothing is
    under way when the group is closed, and what still refers to it in cycles, as a sharded model does, is freed.
    """
    if world() > 1 and torch.distributed.is_initialized():
        join().wait_for_everyone()
        torch.distributed.destroy_process_group()
        gc.collect()


def _sendable(error: Exception) -> Exception:
    """The error itself where it survives the way to another process, else its text."""
    if isinstance(error, AlignXError | OSError):
        return error
    return RuntimeError(f"the main process failed with {type(error).__name__}: {error}")
