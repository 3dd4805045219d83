"""`alignx cost` and `alignx variability`: what answering takes, and how far figures can be repeated."""

import json
from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import RunArgument, app


@app.command()
def cost(
    run: RunArgument,
    repeats: Annotated[int, typer.Option(help="Turns of every method.", min=1)] = 5,
    new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=2)] = 64,
    prompts: Annotated[int, typer.Option(help="Test prompts, of all axes in turn.", min=1)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure latency, tokens a second and peak memory of every method, side by side."""
    from alignx.cli.show import show_lines, show_tables
    from alignx.evaluate.cost import CostOptions
    from alignx.report.cost import cost_sentences, cost_table
    from alignx.workflow import measure_cost

    found = measure_cost(run, CostOptions(repeats, new_tokens, prompts))
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    show_tables([cost_table(found)])
    show_lines(cost_sentences(found))
    typer.echo(f"figures: {run / 'eval' / 'cost' / 'metrics.json'}")


@app.command()
def variability(
    run: RunArgument,
    limit: Annotated[int, typer.Option(help="Test prompts of each axis.", min=1)] = 20,
    beside: Annotated[
        Path | None, typer.Option(help="The same config run with another seed, evaluated.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score the same answers at float32 and bf16, one by one and in batches of 8, and print how far figures move."""
    from alignx.cli.show import show_lines, show_tables
    from alignx.report.variability import variability_sentences, variability_tables
    from alignx.workflow import measure_variability

    found = measure_variability(run, limit=limit, beside=beside)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    show_tables(variability_tables(found))
    show_lines(variability_sentences(found))
    typer.echo(f"figures: {run / 'eval' / 'variability' / 'metrics.json'}")
