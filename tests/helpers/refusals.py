"""Commands that must fail: with exit code 2, one line and no traceback."""

import pytest

from alignx.cli import run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; returns its one line."""
    code = run(arguments)
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), err
    assert "Traceback" not in err
    return lines[0]
