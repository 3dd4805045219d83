"""`alignx judge`: train a small judge on labelled answers, and check how far any judge agrees with such."""

import json
from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import app
from alignx.errors import ConfigError

judge_app = typer.Typer(
    help="Train small judges on labelled answers, and check how far any judge is to be believed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(judge_app, name="judge")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the split and the intervals.", min=0)]


@judge_app.command()
def train(
    kind: Annotated[str, typer.Argument(help="moderation, truth or info.", show_default=False)],
    data: Annotated[list[Path], typer.Option(help="File with labelled answers; may be repeated.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The judge's folder; default judges/KIND.")] = None,
    model: Annotated[str, typer.Option(help="Model whose hidden states it reads.")] = "smollm2-135m",
    run: Annotated[
        list[Path] | None, typer.Option(help="Run whose answers it will judge: never trained on its test prompts.")
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of the prompts held out.")] = 0.25,
    limit: Annotated[int | None, typer.Option(help="Most answers.", min=4)] = None,
    assume_safe: Annotated[
        list[Path] | None,
        typer.Option(help="Instruction data (Alpaca's schema) whose answers count as safe; for moderation."),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a judge, print how far it agrees with labels of held-out prompts, and keep it."""
    if not 0 < held_out < 1:
        raise ConfigError(f"--held-out {held_out}: must lie between 0 and 1")
    from alignx.evaluate.trained.labelled import check_kind
    from alignx.evaluate.trained.train import TrainingOptions, train_judge

    check_kind(kind)
    place = out or Path("judges") / kind
    options = TrainingOptions(
        model=model, held_out=held_out, limit=limit, seed=seed, assume_safe=tuple(assume_safe or ())
    )
    artifact = train_judge(kind, data, place, options, runs=run or [])
    if as_json:
        typer.echo(json.dumps({"out": str(place), "judge": artifact.identity, **artifact.held_out}))
        return
    from alignx.cli.show import show_quality

    name = f"trained-{kind}"
    show_quality([{"name": name, "held_out": artifact.held_out}])
    typer.echo(f"judge {name} ({artifact.identity}): {place}")


@judge_app.command()
def check(
    judge: Annotated[str, typer.Argument(help="A judge as --judges knows it.", show_default=False)],
    data: Annotated[Path, typer.Option(help="File with labelled answers.", show_default=False)],
    limit: Annotated[int | None, typer.Option(help="Most answers.", min=1)] = None,
    run: Annotated[Path | None, typer.Option(help="Run whose report shall repeat what is found.")] = None,
    judge_settings: Annotated[Path | None, typer.Option(help="YAML with settings of the judges.")] = None,
    judge_option: Annotated[
        list[str] | None, typer.Option(help="One setting, e.g. openai.model=gpt-4; wins over the file.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Most US dollars; needs the judge's prices.", min=0)] = None,
    max_calls: Annotated[int | None, typer.Option(help="Most requests, retries among them.", min=0)] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", min=1, max=256)] = 16,
    verdicts: Annotated[
        Path | None, typer.Option(help="Cache of verdicts; default the run's, else judges/verdicts.sqlite.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask a judge about labelled answers: accuracy, AUC, calibration, unscored. Verdicts are kept."""
    from alignx.evaluate.judges.registry import LIKELIHOOD, parse_judges
    from alignx.evaluate.judges.settings import read_settings
    from alignx.evaluate.trained.check import CheckOptions
    from alignx.workflow import check_against_labels

    named = parse_judges(judge, option="judge")
    if len(named) != 1 or named == [LIKELIHOOD]:
        raise ConfigError(f"judge {judge}: give one judge that reads answers, e.g. openai or trained-truth")
    options = CheckOptions(
        limit=limit,
        seed=seed,
        settings=read_settings(judge_settings, judge_option or []),
        max_calls=max_calls,
        max_cost=max_cost,
        concurrency=concurrency,
    )
    found = check_against_labels(named[0], data, options, run=run, verdicts=verdicts)
    if as_json:
        typer.echo(json.dumps({**found.document(), "n_asked": found.n_asked, "cost": found.cost}))
        return
    from alignx.cli.show import show_quality

    show_quality([{"name": found.judge, "checks": [found.document()]}])
    spent = f"; ${found.cost:.2f}" if found.cost else ""
    typer.echo(f"judge {found.judge} ({found.model}): {found.n_asked} asked now{spent}; {found.left_out} left out")
