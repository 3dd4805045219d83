"""`alignx evaluate`: score a run with the likelihood judge, or with judges of generated answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignx.cli.app import RunArgument, app
from alignx.cli.options import parse_names
from alignx.errors import ConfigError

if TYPE_CHECKING:
    from alignx.evaluate.judging.pipeline import JudgingOptions


# Options that mean nothing to the likelihood judge, which reads reference answers, generates none and asks nobody.
_OF_JUDGES = (
    "methods",
    "baseline",
    "limit",
    "max_new_tokens",
    "judge_settings",
    "judge_option",
    "max_cost",
    "max_calls",
    "concurrency",
    "coverage_floor",
    "dry_run",
)


@app.command()
def evaluate(
    context: typer.Context,
    run: RunArgument,
    test_data: Annotated[
        Path | None, typer.Option(help="Folder in the training schemas; all its rows not trained on are test data.")
    ] = None,
    comparators: Annotated[
        str | None,
        typer.Option(help="Made and scored too: joint-mr, task-arithmetic, ties, dare, x-lora, arrow, dense-mixture."),
    ] = None,
    judges: Annotated[
        str | None,
        typer.Option(help="likelihood, openai, moderation, truth, info, trained, refusal, with commas."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods that answer, e.g. base,alignx; default base, experts, joint, uniform, alignx."),
    ] = None,
    baseline: Annotated[str, typer.Option(help="Method that win rates are against.")] = "base",
    limit: Annotated[int | None, typer.Option(help="Most prompts of each axis.", min=1)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 256,
    judge_settings: Annotated[Path | None, typer.Option(help="YAML with settings of the judges.")] = None,
    judge_option: Annotated[
        list[str] | None, typer.Option(help="One setting, e.g. openai.model=gpt-4; wins over the file.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Most US dollars; needs the judges' prices.", min=0)] = None,
    max_calls: Annotated[int | None, typer.Option(help="Most requests, retries among them.", min=0)] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", min=1, max=256)] = 16,
    coverage_floor: Annotated[
        float, typer.Option(help="Share of answers that must be scored for a figure to be shown.", min=0, max=1)
    ] = 0.95,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, tokens and price of the judges, and make none.")
    ] = False,
) -> None:
    """Score every method of a run: by likelihood, or by judges of the answers it generates.

    Answers and verdicts are kept: the same command again makes only what is missing.
    """
    from alignx.evaluate.judges.registry import LIKELIHOOD, parse_judges

    asked = parse_judges(judges) if judges is not None else [LIKELIHOOD]
    others = [name for name in asked if name != LIKELIHOOD]
    if not others:
        _refuse_without_judges(context)
        _by_likelihood(run, test_data, parse_names("--comparators", comparators))
        return
    from alignx.evaluate.judges.settings import read_settings
    from alignx.evaluate.judging.pipeline import JudgingOptions

    options = JudgingOptions(
        judges=others,
        methods=parse_names("--methods", methods),
        baseline=baseline,
        limit=limit,
        max_new_tokens=max_new_tokens,
        settings=read_settings(judge_settings, judge_option or []),
        max_calls=max_calls,
        max_cost=max_cost,
        concurrency=concurrency,
        coverage_floor=coverage_floor,
    )
    if dry_run:
        _plan(run, options, test_data)
        return
    if LIKELIHOOD in asked:
        _by_likelihood(run, test_data, parse_names("--comparators", comparators))
    elif comparators is not None:
        raise ConfigError("--comparators: are scored by likelihood; add `likelihood` to --judges")
    from alignx.cli.show import show_judges
    from alignx.workflow import judge

    metrics = judge(run, options, test_data=test_data)
    show_judges(metrics)
    typer.echo(f"figures: {run / 'eval' / metrics['name'] / 'metrics.json'}")


def _by_likelihood(run: Path, test_data: Path | None, comparators: Sequence[str]) -> None:
    from alignx.cli.show import show_left_out, show_summary
    from alignx.workflow import evaluate as score

    metrics = score(run, test_data=test_data, comparators=comparators)
    show_summary(metrics)
    show_left_out(metrics)
    typer.echo(f"figures: {run / 'eval' / metrics['name'] / 'metrics.json'}")


def _plan(run: Path, options: "JudgingOptions", test_data: Path | None) -> None:
    from alignx.cli.show import show_plan
    from alignx.workflow import plan_judges

    show_plan(plan_judges(run, options, test_data=test_data))


def _refuse_without_judges(context: typer.Context) -> None:
    for name in _OF_JUDGES:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option}: goes with --judges that read generated answers, e.g. --judges openai")
