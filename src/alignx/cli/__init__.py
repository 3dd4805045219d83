"""The command line: parses, calls, prints. Errors are one line on the error stream and exit code 2."""

import os
import sys
from collections.abc import Sequence

from alignx.errors import AlignXError

INTERRUPTED = 130


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

    # Each module of commands registers with the app when imported.
    from alignx.cli import commands, evaluate  # noqa: F401
    from alignx.cli.app import app

    try:
        app(args=list(arguments), prog_name="alignx", standalone_mode=False)
    except AlignXError as error:
        return _fail(str(error))
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "alignx"
        return _fail(f"{error.format_message()} Try `{command} --help`.")
    except Exit as stop:
        return stop.exit_code
    except (Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted; the same command goes on from the last finished step\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}; check the path, its permissions and the free space")
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2
