"""Progress of long steps and notices of what was done, on the error stream.

On a terminal: one bar a step. Elsewhere: one line when a step starts and one when it ends, without escape codes.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignx.ranks import is_main

_console = Console(stderr=True, highlight=False, soft_wrap=True)


def notice(message: str) -> None:
    """One line about what a step found or did; of several processes the main one says it."""
    if not is_main():
        return
    if _console.is_terminal:
        _console.print(message, markup=False)
    else:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a step's progress; the value yielded is called with how many units were just done.

    Args:
        description: what is being done, a few words.
        total: units in all.
    """
    if not (_console.is_terminal and is_main()):
        started = time.monotonic()
        notice(f"{description} ({total}) ...")
        yield lambda n_done: None
        notice(f"{description}: {time.monotonic() - started:.1f} s")
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n_done: bar.advance(task, n_done)
