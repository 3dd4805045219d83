"""The road's commands, from a config to an answer; each a thin call to `alignx.workflow` or `alignx.one_axis`.

Heavy imports happen inside the commands, so that `--help` and typing errors answer at once.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from alignx.cli.app import RunArgument, app
from alignx.cli.options import parse_columns, parse_pairs, parse_splits
from alignx.config import load_config
from alignx.errors import ConfigError

DEFAULT_SPLITS = "360,65,60,140"


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML config.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Run directory; default runs/<config's name>, and -SEED where given.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the config's relative data files.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the config's.", min=0)] = None,
) -> None:
    """Do everything a config asks for, as far as it is not done yet: train, mix, score, report."""
    started = time.monotonic()
    settings = load_config(config)
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    from alignx.cli.show import show_showcase, show_summary
    from alignx.evaluate.pipeline import peak_gb
    from alignx.workflow import run_all

    folder = out or Path("runs") / (config.stem if seed is None else f"{config.stem}-{seed}")
    metrics = run_all(settings, folder, data_dir=data_dir)
    show_summary(metrics)
    show_showcase(folder)
    typer.echo(f"report: {folder / 'report.html'}")
    typer.echo(f"run_seconds={time.monotonic() - started:.0f} peak_gb={peak_gb():.2f}")


@app.command()
def stage1(
    model: Annotated[str, typer.Option(help="Preset, hub id, local folder or GGUF file.", show_default=False)],
    dataset: Annotated[
        str,
        typer.Option(
            help="alpaca, beavertails or truthfulqa, from the hub; =PATH for a file or hub name; =sample for ours. "
            "Your own data: pairs=PATH, preference=PATH or messages=PATH."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory; call again with another data set for the next axis.")],
    axis: Annotated[
        str | None,
        typer.Option(help="Name of the axis; default that of the published set (helpful, harmless, honest)."),
    ] = None,
    instruction: Annotated[str, typer.Option(help="Injected axis instruction; default the built-in one.")] = "",
    splits: Annotated[
        str, typer.Option(help="Prompts for TRAIN,MIX,CALIBRATION,TEST.", show_default=DEFAULT_SPLITS)
    ] = DEFAULT_SPLITS,
    columns: Annotated[
        str | None, typer.Option(help="Your file's columns, e.g. prompt=question,response=answer.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Figure the axis is judged by: loss, win_rate, safe_preferred, mc1 or mc2.")
    ] = None,
    max_examples: Annotated[int | None, typer.Option(help="Rows read, drawn by seed.", min=1)] = None,
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="Read a set larger than memory row by row; the hub's without a download."),
    ] = False,
    method: Annotated[str | None, typer.Option(help="lora, or full: every weight learns.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training prompts.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    injection_rate: Annotated[
        float | None, typer.Option(help="Share of examples with the axis instruction in the prompt.", min=0, max=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of a new run.", min=0)] = 0,
    finish: Annotated[bool, typer.Option("--finish", help="Also extract what all axes take part in.")] = False,
    dense: Annotated[bool, typer.Option("--dense", help="Also keep dense task vectors.")] = False,
    copy_base: Annotated[bool, typer.Option("--copy-base", help="Also keep the base's weights.")] = False,
    merged: Annotated[bool, typer.Option("--merged", help="Also keep base and expert as a plain model.")] = False,
    show_example: Annotated[
        bool,
        typer.Option("--show-example", help="Print one training example as tokens, and stop: trains, writes nothing."),
    ] = False,
) -> None:
    """Train the expert of one axis; again for the next."""
    sizes = parse_splits(splits)
    from alignx.one_axis import add_axis, describe_data, parse_dataset, training_example

    settings = {
        "columns": parse_columns(columns),
        "metric": metric,
        "max_examples": max_examples,
        "streaming": streaming,
    }
    name, data = parse_dataset(dataset, axis=axis, instruction=instruction, splits=sizes, settings=settings)
    asked = {
        "method": method,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "injection_rate": injection_rate,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    if show_example:
        from alignx.cli.show_example import show_training_example

        show_training_example(training_example(out, model=model, axis=name, data=data, seed=seed, settings=given))
        return
    kept = [key for key, on in {"dense": dense, "copy_base": copy_base, "merged": merged}.items() if on]
    add_axis(out, model=model, axis=name, data=data, seed=seed, settings=given, keep=kept, finish=finish)
    for line in describe_data(out, name):
        typer.echo(line)
    typer.echo(f"expert {name}: {out / 'stage1' / name / 'adapter'}")


@app.command()
def stage2(
    run: RunArgument,
    method: Annotated[str, typer.Option(help="mocae, uniform, task-arithmetic, ties, dare or negate.")] = "mocae",
) -> None:
    """Fit and train the mixture of calibrated experts, or make a static merge to compare it with."""
    from alignx.workflow import fit_mixture

    fit_mixture(run, method=method)
    typer.echo(f"{method}: {run / 'stage2' / f'{method}.json'}")


@app.command()
def report(run: RunArgument) -> None:
    """Write report.html and report.md from what a run has kept."""
    from alignx.workflow import report as write

    for path in write(run):
        typer.echo(str(path))


@app.command()
def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(help="What to answer.", show_default=False)],
    preset: Annotated[
        str | None,
        typer.Option(
            help="Setting of the dial by name: balanced, cautious, frank, eager, lean-AXIS, or one of the run's own "
            "(`alignx inspect RUN` lists them). --weight, --floor and --strength replace its values one by one."
        ),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Factor on an axis's odds, e.g. harmless=2; 0 switches it off.")
    ] = None,
    floor: Annotated[
        list[str] | None, typer.Option(help="Least share of the mixture an axis gets, e.g. harmless=0.2.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Scale of all experts; 0 is the base, negative negates; default 1.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens; default 256.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
) -> None:
    """Answer a prompt, and say with which weights."""
    weights, floors = parse_pairs("--weight", weight), parse_pairs("--floor", floor)
    if stream and as_json:
        raise ConfigError("--stream and --json: one JSON object is only known at the end; drop one of them")
    from alignx.cli.show import show_answer, show_stream
    from alignx.mixture.runtime import AlignX
    from alignx.mixture.showcase import answer_row
    from alignx.workflow import make_dial

    dial = make_dial(run, preset, weights=weights, floors=floors, strength=strength)
    model = AlignX.from_pretrained(run)
    if stream:
        show_stream(model.stream(prompt, dial, max_new_tokens=max_new_tokens))
        return
    answer = model.generate(prompt, dial, max_new_tokens=max_new_tokens)[0]
    if as_json:
        typer.echo(json.dumps(answer_row("", prompt, answer), ensure_ascii=False))
    else:
        show_answer(answer)
