"""The command line: parses, calls, prints. Errors are one line on the error stream and exit code 2."""

import errno
import os
import sys
import time
from collections.abc import Sequence

from alignx.errors import AlignXError
from alignx.ranks import is_main, world

INTERRUPTED = 130
_MAIN_FIRST_SECONDS = 3.0
# What the system says about a disk rather than a file; an open file's write names no file.
_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `alignx`.

    Args:
        arguments: words after the command's name; none takes those of the process.

    Raises:
        SystemExit: always; 0 when done, 2 for input that cannot be used, 130 when interrupted.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from typer.exceptions import Abort, Exit, TyperException

    # Each module of commands registers with the app when it is imported.
    from alignx.cli import (  # noqa: F401
        ablate,
        commands,
        compare,
        evaluate,
        inspect,
        judge,
        measure,
        plan,
        probe,
        tradeoff,
        vector,
    )
    from alignx.cli.app import app

    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # one process of several prints
    try:
        outcome = app(args=list(arguments), prog_name="alignx", standalone_mode=False)
    except AlignXError as error:
        return _fail(str(error), error)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "alignx"
        return _fail(f"{error.format_message()} Try `{command} --help`.")
    except Exit as stop:
        return stop.exit_code
    except (Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}; check the path, its permissions and the free space", error)
    # Typer gives an interrupt, and an exit that a command asks for, back as the command's own result.
    if outcome == INTERRUPTED:
        return _interrupted()
    if world() > 1:
        from alignx.runs import processes

        processes.leave()
    return outcome if isinstance(outcome, int) else 0


def _interrupted() -> int:
    sys.stderr.write("interrupted; the same command goes on from the last finished step\n")
    return INTERRUPTED


def _fail(message: str, error: Exception | None = None) -> int:
    if not is_main():
        if getattr(error, "is_mains", False):
            return 2
        # The main process mostly fails for the same reason and says so first; the launcher then ends this one.
        time.sleep(_MAIN_FIRST_SECONDS)
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2
