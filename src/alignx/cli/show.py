"""What the commands print on the output stream."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignx.evaluate.judging.pipeline import Plan
from alignx.mixture.answers import Answer
from alignx.mixture.stream import AnswerStream
from alignx.report.judge_quality import quality_table
from alignx.report.judges import terminal_tables
from alignx.report.tables import Table as ReportTable
from alignx.report.tables import render_terminal_table
from alignx.report.tradeoff import sentences, tradeoff_tables
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_jsonl

WIDTH = 110


def _console() -> Console:
    """A console as wide as our tables, so that a pipe gets the same as a terminal."""
    return Console(width=WIDTH, highlight=False)


def show_summary(metrics: dict[str, Any]) -> None:
    """The table of losses."""
    _console().print(render_terminal_table(metrics))


def show_left_out(metrics: dict[str, Any]) -> None:
    """How many rows were left out because the run has trained on their prompts."""
    for axis, count in metrics["left_out_because_trained"].items():
        _console().print(f"{axis}: {metrics['n'][axis]} prompts scored, {count} left out because trained on")


def show_judges(metrics: dict[str, Any]) -> None:
    """The headline tables of every judge, each with its unscored."""
    show_tables(terminal_tables(metrics))


def show_tables(tables: Sequence[ReportTable]) -> None:
    """Tables of a report, one below the other."""
    for table in tables:
        _console().print(_plain_table(table))


def show_lines(lines: Sequence[str]) -> None:
    """Sentences, one a line."""
    for line in lines:
        _console().print(Text(_plain_minus(line)), soft_wrap=True)


def show_tradeoff(metrics: dict[str, Any]) -> None:
    """What to take away of a sweep, and its tables."""
    show_lines(sentences(metrics))
    show_tables(tradeoff_tables(metrics))


def show_quality(judges: Sequence[Mapping[str, Any]]) -> None:
    """How far judges agree with labelled answers."""
    table = quality_table(judges)
    if table is not None:
        _console().print(_plain_table(table))


def show_plan(plan: Plan) -> None:
    """What judging would take."""
    console = _console()
    console.print(f"answers: {plan.answers_kept} kept, {plan.answers_missing} to generate", soft_wrap=True)
    for judge in plan.judges:
        price = "price unknown (set its input_price and output_price)" if judge.cost is None else f"${judge.cost:.2f}"
        console.print(
            f"judge {judge.name} ({judge.model}): {judge.to_ask} to ask, {judge.kept} kept; about "
            f"{judge.prompt_tokens} prompt tokens, at most {judge.completion_tokens} completion tokens, {price}",
            markup=False,
            soft_wrap=True,
        )
    console.print("dry run: nothing was generated or asked")


def _plain_minus(text: str) -> str:
    """A terminal's encoding may lack the typographic minus."""
    return text.replace("\N{MINUS SIGN}", "-")


def _plain_table(table: ReportTable) -> Table:
    """A report's table for the terminal: intervals below the values."""
    shown = Table(
        box=box.SIMPLE_HEAD,
        title=Text(table.caption),
        title_style="bold",
        title_justify="left",
        caption=Text(table.note),
        caption_style="dim",
        caption_justify="left",
    )
    shown.add_column(table.head)
    for column in table.columns:
        head = column.title if column.n is None else f"{column.title}\nn = {column.n}"
        shown.add_column(Text(head), justify="left" if column.is_text else "right")
    for row in table.rows:
        words = [f"{cell.text}\n{cell.interval}" if cell.interval else cell.text for cell in row.cells]
        cells = [Text(_plain_minus(one)) for one in words]
        shown.add_row(Text(row.label, style="bold" if row.is_ours else ""), *cells)
    return shown


def show_showcase(out: Path) -> None:
    """The showcase's answers side by side."""
    path = RunDirectory(out).evaluation_folder("showcase") / "answers.jsonl"
    if not path.is_file():
        return
    rows = read_jsonl(path)
    table = Table(title=Text(f"“{rows[0]['prompt']}”"), box=box.SIMPLE_HEAD, padding=(0, 1))
    for row in rows:
        table.add_column(Text(row["setting"]), ratio=1)
    table.add_row(*(Text(printable(row["answer"]) + ("" if row["finished"] else " …")) for row in rows))
    table.add_section()
    table.add_row(*(Text(weights_line(row["pi"]), style="dim") for row in rows))
    _console().print(table)


def show_answer(answer: Answer) -> None:
    """An answer and the weights it was given."""
    _console().print(Text(printable(answer.text)), soft_wrap=True)
    _show_weights(answer)


def show_stream(stream: AnswerStream) -> None:
    """An answer as it comes, then the weights it was given."""
    with stream:
        for piece in stream:
            typer.echo(printable(piece), nl=False)
    typer.echo()
    if stream.answer is not None:
        _show_weights(stream.answer)


def _show_weights(answer: Answer) -> None:
    weights = answer.weights
    console = _console()
    console.print()
    console.print(f"weights: {weights_line(weights.pi)}; strength {weights.scale:.2f}", markup=False, soft_wrap=True)
    console.print(f"prompt is like: {weights_line(weights.axis_probs)}", markup=False, soft_wrap=True)
    console.print(f"served best by: {weights_line(weights.best_probs)}", markup=False, soft_wrap=True)
    if weights.out_of_distribution:
        console.print(f"unlike any axis's data (g {weights.known:.2f}): the fallback speaks", soft_wrap=True)
    if answer.prompt_cut:
        console.print(f"the prompt's first {answer.prompt_cut} tokens did not fit the context", soft_wrap=True)
    if not answer.finished:
        console.print("cut at --max-new-tokens", soft_wrap=True)


def printable(text: str) -> str:
    """A model's text without control characters, which a terminal would obey; line ends and tabs stay."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")


def weights_line(weights: dict[str, float]) -> str:
    """Weights by axis in one line."""
    return ", ".join(f"{axis} {value:.2f}" for axis, value in weights.items())
