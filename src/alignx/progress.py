"""Progress of long steps and notices of what was done, on the error stream.

On a terminal: one bar a step. Elsewhere: one line when a step starts and one when it ends, without escape codes.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignx.ranks import is_main

# Elsewhere than on a terminal, a note of a long step is shown this often.
_SECONDS_BETWEEN_NOTES = 15.0

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


class Advance(Protocol):
    """Called with how many units were just done, and what to show beside them, such as the cost so far."""

    def __call__(self, n_done: int, note: str = "") -> None:
        """Show it."""


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """Show a step's progress; the value yielded is called with how many units were just done.

    Args:
        description: what is being done, a few words.
        total: units in all.
    """
    if not (_console.is_terminal and is_main()):
        started = time.monotonic()
        notice(f"{description} ({total}) ...")
        yield _NotedLines(description, total)
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

        def advance(n_done: int, note: str = "") -> None:
            bar.update(task, advance=n_done, description=f"{description} ({note})" if note else description)

        yield advance


class _NotedLines:
    """Where there is no terminal: a line now and then, for steps that have something to say."""

    def __init__(self, description: str, total: int) -> None:
        self.description = description
        self.total = total
        self.n_done = 0
        self.last = time.monotonic()

    def __call__(self, n_done: int, note: str = "") -> None:
        self.n_done += n_done
        if note and time.monotonic() - self.last >= _SECONDS_BETWEEN_NOTES:
            self.last = time.monotonic()
            notice(f"{self.description}: {self.n_done} of {self.total} ({note})")
