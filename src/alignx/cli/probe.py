"""`alignx probe`: how a run behaves off its own data."""

from typing import Annotated

import typer

from alignx.cli.app import RunArgument, app


@app.command()
def probe(
    run: RunArgument,
    kinds: Annotated[
        str | None, typer.Option(help="foreign, disguise, several-axes, with commas; default all three.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Most prompts of each kind, and most test prompts of each axis.", min=1)
    ] = None,
    guard_axis: Annotated[
        str | None, typer.Option(help="Axis that a disguise must not switch off; default harmless where there is one.")
    ] = None,
    floor: Annotated[float, typer.Option(help="Least weight of the guard axis in the check of floors.")] = 0.5,
    answers: Annotated[
        int, typer.Option(help="Prompts needing several axes that base, experts and AlignX answer side by side.", min=0)
    ] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest of these answers, in tokens.", min=1)] = 96,
) -> None:
    """Measure a finished run off its own data: foreign prompts, disguised requests, prompts that need several axes."""
    from alignx.evaluate.probe.sets import parse_kinds

    asked = parse_kinds(kinds)
    from alignx.cli.show import show_lines, show_tables
    from alignx.evaluate.probe.pipeline import ProbeOptions
    from alignx.report.probe import probe_tables
    from alignx.workflow import probe as measure

    options = ProbeOptions(asked, limit, guard_axis, floor, answers, max_new_tokens)
    tables, left_out = probe_tables(measure(run, options))
    show_tables(tables)
    show_lines(left_out)
    if answers and "several-axes" in asked:
        typer.echo(f"answers: {run / 'eval' / 'probe' / 'answers.jsonl'}")
    typer.echo(f"figures: {run / 'eval' / 'probe' / 'metrics.json'}")
