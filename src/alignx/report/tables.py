"""Metrics -> tables. Pure: what a table says is decided here once, for the terminal, markdown and HTML alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignx.evaluate.measures import AVERAGE
from alignx.report.wording import (
    ALIGNX,
    JOINT,
    ORACLE_PREFIX,
    UNIFORM,
    axes_of,
    counts,
    is_main,
    listed,
    method_label,
    number,
    number_range,
    ordered_methods,
    per_cent,
    signed_per_cent,
    signed_range,
    verdict_on,
)

if TYPE_CHECKING:
    from rich.table import Table as RichTable

QUESTIONS = {"axis": "which axis is it from?", "best_expert": "which expert is best?"}
PREDICTORS = {"alignx": "AlignX", "plain": "plain router", "plain_with_temperature": "plain router + temperature"}
MEASURES = {
    "win_rate": "win rate vs base",
    "safe_preferred": "safe preferred",
    "mc1": "MC1",
    "mc2": "MC2",
}


# Columns of the terminal's table, the average among them, whose intervals fit side by side in 100 characters.
_INTERVAL_COLUMNS = 4


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: the value, or words.
        interval: its 95% interval; empty when there is none.
        tone: `better`, `worse` or empty; only ever said again in words.
    """

    text: str
    interval: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """One row; `name` is the artifact's own name of it, `label` what readers see, `is_ours` whether it is AlignX."""

    name: str
    label: str
    cells: tuple[Cell, ...]
    is_ours: bool = False


@dataclass(frozen=True)
class Column:
    """Head of a column; `n` is what its values were measured on, none when that is not one number.

    Attributes:
        title: its name.
        n: prompts behind its values.
        is_text: whether it holds words, which are set from the left.
    """

    title: str
    n: int | None = None
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table with row heads.

    Attributes:
        caption: what it shows, in which unit.
        head: head of the column that holds the rows' labels.
        columns: the other columns.
        rows: as many cells each as there are columns.
        note: what a reader must know to read it right; may be empty.
    """

    caption: str
    head: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


def loss_columns(metrics: Mapping[str, Any]) -> tuple[Column, ...]:
    """Columns of the loss table: every axis, then the average, each with its n."""
    return tuple(Column(name, metrics["n"][name]) for name in (*axes_of(metrics), AVERAGE))


def loss_table_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Loss of every method by axis and on average, with its 95% interval; nats per target token, lower is better.

    Args:
        metrics: what `metrics.json` holds.

    Returns:
        One row a method in the order base, experts, joint, uniform, AlignX, ablations, other joints, oracle bounds;
        a cell for every column of `loss_columns`.
    """
    rows = []
    for method in ordered_methods(metrics["loss"], axes_of(metrics)):
        values, intervals = metrics["loss"][method], metrics["loss_interval"][method]
        cells = tuple(
            Cell(number(values[column.title]), number_range(*intervals[column.title]))
            for column in loss_columns(metrics)
        )
        rows.append(Row(method, method_label(method), cells, is_ours=method == ALIGNX))
    return rows


def loss_table(metrics: Mapping[str, Any]) -> Table:
    """The loss of all methods."""
    rows = loss_table_rows(metrics)
    has_bound = any(row.name.startswith(ORACLE_PREFIX) for row in rows)
    bound = " An oracle picks with the answer in hand: a bound, not a method." if has_bound else ""
    return Table(
        "Loss on the reference answers: nats per target token, lower is better",
        "method",
        loss_columns(metrics),
        tuple(rows),
        "With each value: its 95% bootstrap interval over test prompts. The average weighs every axis the same."
        + bound
        + _repeats_note(metrics),
    )


def _repeats_note(metrics: Mapping[str, Any]) -> str:
    """How far the seeds of a method lie apart whose row is their mean."""
    return "".join(
        f" {method_label(method)}: the mean of {len(losses)} seeds, with averages {listed([*map(number, losses)])}."
        for method, losses in metrics.get("repeats", {}).items()
    )


def versus_table(metrics: Mapping[str, Any]) -> Table:
    """AlignX minus every other method in per cent of the other's loss, paired by prompt; and the regret."""
    axes = axes_of(metrics)
    rows = [_difference_row("regret", "own expert of each prompt (regret)", metrics["regret"], axes)]
    rows += [
        _difference_row(f"regret-{method}", f"regret of {method_label(method)}", found, axes)
        for method, found in metrics.get("regret_of", {}).items()
        if method != ALIGNX
    ]
    rows += [
        _difference_row(method, method_label(method), metrics["alignx_versus"][method], axes)
        for method in ordered_methods(metrics["alignx_versus"], axes)
    ]
    return Table(
        "AlignX's loss minus the other's, in per cent of the other's; negative is better for AlignX",
        "AlignX against",
        (*(Column(name, metrics["n"][name]) for name in (AVERAGE, *axes)), Column("AlignX on average", is_text=True)),
        tuple(rows),
        "Paired by prompt. With each value: its 95% bootstrap interval; about one in 20 misses the true value.",
    )


def likelihood_table(metrics: Mapping[str, Any]) -> Table:
    """The likelihood judge's rates by method, in per cent: the measures an axis has, then the average of headlines."""
    axes, judged = axes_of(metrics), metrics["likelihood"]
    kinds = [
        (measure, axis)
        for measure in MEASURES
        for axis in axes
        if any(measure in by_axis.get(axis, {}) for by_axis in judged.values())
    ]
    rows = [
        Row(
            method,
            method_label(method),
            (
                *(_rate(judged[method].get(axis, {}).get(measure)) for measure, axis in kinds),
                _plain_rate(judged[method]),
            ),
            is_ours=method == ALIGNX,
        )
        for method in ordered_methods(judged, axes)
    ]
    columns = [Column(f"{MEASURES[measure]} ({axis})", _n_behind(judged, measure, axis)) for measure, axis in kinds]
    return Table(
        "Likelihood judge: per cent, higher is better",
        "method",
        (*columns, Column(AVERAGE)),
        tuple(rows),
        f"Win rate: share of prompts whose reference answer is likelier than under the base model (ties half), not a "
        f"person's or GPT-4's preference. Multiple choice is asked in the {metrics['prompt_style']} prompt style, so "
        f"MC1 and MC2 compare with each other only, not with published figures. With each value: its 95% bootstrap "
        f"interval. {_average_takes(metrics)}",
    )


def calibration_table(metrics: Mapping[str, Any]) -> Table:
    """How far stated probabilities can be believed, for both read-outs and the routers they are compared with."""
    rows = []
    for question, by_predictor in metrics["calibration"].items():
        for predictor, found in by_predictor.items():
            within = found["ece"] <= found["perfect_p95"]
            cells = (
                Cell(number(found["ece"])),
                Cell(number(found["perfect_mean"])),
                Cell(number(found["perfect_p95"])),
                Cell("yes", tone="better") if within else Cell("no", tone="worse"),
                Cell(number(found["brier"])),
                Cell(number(found["log_loss"])),
                Cell(number(found["accuracy"])),
                Cell(number(found["confidence"])),
            )
            label = f"{QUESTIONS.get(question, question)} {PREDICTORS.get(predictor, predictor)}"
            rows.append(Row(f"{question}/{predictor}", label, cells, is_ours=predictor == ALIGNX))
    titles = ("ECE", "perfect: mean", "perfect: p95", "ECE within p95", "Brier", "log loss", "accuracy", "confidence")
    return Table(
        f"Calibration of both read-outs (n = {metrics['n'][AVERAGE]}); ECE, Brier and log loss: lower is better",
        "question and predictor",
        tuple(Column(title) for title in titles),
        tuple(rows),
        "ECE is never 0 in a finite sample: perfect is what a perfectly calibrated predictor with the same "
        "confidences would get, its mean and 95th percentile. Within p95 means that no miscalibration shows at this n.",
    )


def mixture_table(metrics: Mapping[str, Any]) -> Table:
    """Mean mixture weight of every expert by the axis a prompt comes from."""
    axes, mean_pi = axes_of(metrics), metrics["routing"]["mean_pi"]
    rows = (Row(axis, _origin(metrics, axis), tuple(Cell(per_cent(mean_pi[axis][to])) for to in axes)) for axis in axes)
    return Table(
        "Mean mixture weights by the axis a prompt comes from",
        "prompts of",
        tuple(Column(f"expert {axis}") for axis in axes),
        tuple(rows),
        "With the dial at rest.",
    )


def confusion_table(metrics: Mapping[str, Any]) -> Table:
    """Which axis the most likely one is, by the axis a prompt comes from; prompts."""
    axes, confusion = axes_of(metrics), metrics["routing"]["confusion"]
    rows = tuple(
        Row(
            axis,
            _origin(metrics, axis),
            (*(Cell(str(count)) for count in confusion[at]), Cell(per_cent(confusion[at][at] / sum(confusion[at])))),
        )
        for at, axis in enumerate(axes)
    )
    return Table(
        "Confusion: the most likely axis by axis_probs (prompts)",
        "prompts of",
        (*(Column(f"taken for {axis}") for axis in axes), Column("right")),
        rows,
    )


def routing_facts_table(metrics: Mapping[str, Any]) -> Table:
    """Single numbers about the mixture."""
    routing = metrics["routing"]
    parts = ", ".join(f"{name} {number(value)}" for name, value in routing["coefficients"].items())
    aurocs = ", ".join(number(value) for value in routing["foreign_auroc_on_development_set"])
    facts = {
        "mean factor on the experts": number(routing["mean_scale"]),
        "learned strength of an even mixture": number(routing["learned_strength"]),
        "coefficients of the logits": parts,
        "test prompts taken as known (mean of g)": number(routing["known"]),
        "AUROC of the foreign-prompt detector, by depth": aurocs or "not measured",
    }
    return facts_table(
        "The mixture in numbers",
        facts,
        note="The AUROC is of the development set that chose the detector's depth, so it flatters.",
    )


def facts_table(caption: str, facts: Mapping[str, str], *, note: str = "") -> Table:
    """Two columns: what, and its value."""
    rows = tuple(Row(name, name, (Cell(value),)) for name, value in facts.items())
    return Table(caption, "what", (Column("value", is_text=True),), rows, note)


def render_terminal_table(metrics: Mapping[str, Any]) -> "RichTable":
    """The one table at the end of a run: loss of base, experts, joint LoRA, uniform merge and AlignX.

    Args:
        metrics: what `metrics.json` holds.

    Returns:
        A table that fits in 100 columns with three axes. Below a value stands its 95% interval; with more axes than
        that, only below the average.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(
        box=box.SIMPLE_HEAD,
        title=Text(f"AlignX on {metrics['model']}: loss on the reference answers, lower is better"),
        title_style="bold",
        title_justify="left",
        caption=Text(_terminal_caption(metrics)),
        caption_style="dim",
        caption_justify="left",
    )
    table.add_column("method")
    columns = loss_columns(metrics)
    for column in columns:
        head = Text(f"{column.title}\nn = {column.n}")
        table.add_column(head, justify="right", overflow="fold", no_wrap=column.title == AVERAGE)
    for row in loss_table_rows(metrics):
        if is_main(row.name):
            style = "bold" if row.is_ours else ""
            cells = []
            for column, cell in zip(columns, row.cells, strict=True):
                has_room = column.title == AVERAGE or len(columns) <= _INTERVAL_COLUMNS
                cells.append(Text.assemble((cell.text, style), *(("\n", (cell.interval, "dim")) if has_room else ())))
            table.add_row(Text(row.label, style=style), *cells)
    return table


def _terminal_caption(metrics: Mapping[str, Any]) -> str:
    return (
        f"Nats per target token. Below a value: its 95% bootstrap interval over test prompts. "
        f"n = {metrics['n'][AVERAGE]} prompts ({counts(metrics)}); the average weighs every axis the same. "
        f"Judge: {metrics['judge']} (of the reference answer, prompt style {metrics['prompt_style']}); "
        f"seed {metrics['seed']}.{_paired_note(metrics)}"
    )


def _paired_note(metrics: Mapping[str, Any]) -> str:
    """The intervals of the table overlap even where methods differ on the same prompts: say what the pairs say."""
    notes = []
    for method in (JOINT, UNIFORM):
        if method in metrics["alignx_versus"]:
            found = metrics["alignx_versus"][method]
            words = f"{signed_per_cent(found[AVERAGE])} ({signed_range(found['interval'])})"
            verdict = verdict_on(found[AVERAGE], *found["interval"])
            notes.append(f"{method_label(method)} {words}, {verdict}")
    if not notes:
        return ""
    # A terminal's encoding may lack the typographic minus.
    return f" Paired by prompt, AlignX against: {'; '.join(notes)}.".replace("\N{MINUS SIGN}", "-")


def _difference_row(name: str, label: str, found: Mapping[str, Any], axes: Sequence[str]) -> Row:
    low, high = found["interval"]
    verdict = verdict_on(found[AVERAGE], low, high)
    cells = [Cell(signed_per_cent(found[AVERAGE]), signed_range(found["interval"]))]
    cells += [Cell(signed_per_cent(found[axis]), signed_range(found[f"{axis}_interval"])) for axis in axes]
    cells.append(Cell(verdict, tone=verdict if verdict in {"better", "worse"} else ""))
    return Row(name, label, tuple(cells))


def _average_takes(metrics: Mapping[str, Any]) -> str:
    """Which figure stands for each axis; figures made before axes named theirs do not say."""
    if "metric" not in metrics:
        return "The average takes one figure an axis (win rate, safe preferred or MC2) and has no interval."
    chosen = {axis: MEASURES.get(name, "loss") for axis, name in metrics["metric"].items()}
    taken = "; ".join(f"{axis}: {words}" for axis, words in chosen.items())
    if "loss" in chosen.values():
        return f"Each axis is judged by one figure ({taken}); a loss is not a percentage, so there is no average."
    return f"The average takes one figure an axis ({taken}) and has no interval."


def _rate(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell("none")
    return Cell(number(found["value"], 1), number_range(*found["interval"], digits=1))


def _plain_rate(by_axis: Mapping[str, Any]) -> Cell:
    return Cell(number(by_axis[AVERAGE], 1)) if AVERAGE in by_axis else Cell("none")


def _n_behind(judged: Mapping[str, Any], measure: str, axis: str) -> int | None:
    """All methods judge the same prompts, so any of them tells n."""
    found = next((by_axis[axis][measure] for by_axis in judged.values() if measure in by_axis.get(axis, {})), None)
    return None if found is None else int(found["n"])


def _origin(metrics: Mapping[str, Any], axis: str) -> str:
    return f"{axis} (n = {metrics['n'][axis]})"
