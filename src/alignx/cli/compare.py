"""`alignx compare`: two runs side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import app


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Run directory.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another run directory.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Page to write, FILE.html; the same in FILE.md.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two evaluated runs on the test prompts they share, paired prompt by prompt."""
    from alignx.cli.show import show_lines, show_tables
    from alignx.report.comparison import comparison_sentences, comparison_tables
    from alignx.workflow import compare as compare_runs

    found, written = compare_runs(first, second, out=out)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    show_lines(comparison_sentences(found))
    show_tables(comparison_tables(found))
    for path in written:
        typer.echo(f"page: {path}")
