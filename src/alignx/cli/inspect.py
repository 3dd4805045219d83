"""`alignx inspect`: what a run directory holds and how its experts lie to each other."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alignx.cli.app import RunArgument, app


@app.command()
def inspect(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; default RUN/inspect.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show artifacts, sizes, norms, cosines and principal angles, and draw pictures of them."""
    from alignx.cli.show_inspection import show_inspection
    from alignx.inspect.contents import inspect_run
    from alignx.inspect.figures import write_pictures
    from alignx.runs.directory import RunDirectory

    found: dict[str, Any] = inspect_run(RunDirectory(run))
    pictures = write_pictures(found, out or run / "inspect")
    if as_json:
        typer.echo(json.dumps({**found, "pictures": [str(path) for path in pictures]}, ensure_ascii=False))
        return
    show_inspection(found)
    for path in pictures:
        typer.echo(f"picture: {path}")
