"""`alignx tradeoff`: what each turn of the dial gains and costs."""

from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import app


@app.command()
def tradeoff(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished run, or several of one config and different seeds.", metavar="RUN...")
    ],
    limit: Annotated[
        int, typer.Option(help="Most test prompts of an axis; a smaller number's are among a larger one's.", min=1)
    ] = 40,
    resolution: Annotated[
        int, typer.Option(help="Steps along an edge of the grid over all axes' weights.", min=1, max=12)
    ] = 3,
) -> None:
    """Sweep the dial and score every setting: gains, costs, the front, and where fixed mixtures lie.

    Scores are kept prompt by prompt: the same command again makes only what is missing.
    """
    from alignx.cli.show import show_tradeoff
    from alignx.workflow import tradeoff as sweep

    metrics = sweep(runs, limit=limit, resolution=resolution)
    first = runs[0]
    if metrics is None:
        typer.echo(f"{first} has one axis, so there is nothing to trade; its only dial is --strength")
        return
    show_tradeoff(metrics)
    typer.echo(f"figures: {first / 'eval' / 'tradeoff' / ('metrics.json' if len(runs) == 1 else 'pooled.json')}")
    for run in runs:
        report = run / "report.html"
        typer.echo(f"pictures: {report}" if report.is_file() else f"pictures: after `alignx evaluate {run}`")
