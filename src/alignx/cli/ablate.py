"""`alignx ablate`: what each part of a finished run buys."""

from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import app
from alignx.cli.options import parse_names


@app.command()
def ablate(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished run, or several of one config and different seeds.", metavar="RUN...")
    ],
    only: Annotated[
        str | None,
        typer.Option(help="Rows or groups, with commas: parts, lambda, epsilon, q, latent-size, or a row's name."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most test prompts of each axis.", min=1)] = None,
    sweep_limit: Annotated[
        int, typer.Option(help="Most prompts of each axis on which rows of sweeps are scored.", min=1)
    ] = 40,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another finished, evaluated run on the same test prompts; may be given again."),
    ] = None,
) -> None:
    """Make the ablation table: parts left out, settings changed, each against AlignX.

    Losses are kept: the same command again scores only what is missing.
    """
    from alignx.cli.show import show_tables
    from alignx.evaluate.ablation.pipeline import AblationOptions
    from alignx.report.ablation import ablation_tables
    from alignx.workflow import ablate as make

    options = AblationOptions(tuple(parse_names("--only", only)), limit, sweep_limit, tuple(beside or ()))
    metrics = make(runs, options)
    show_tables(ablation_tables(metrics))
    typer.echo(f"figures: {runs[0] / 'eval' / 'ablate' / ('metrics.json' if len(runs) == 1 else 'pooled.json')}")
