"""What `alignx probe` prints: plain tables, an interval below each value."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignx.evaluate.probe.foreign import AXIS_DOUBT, BEST_DOUBT, DETECTOR, LENGTH
from alignx.evaluate.probe.sets import DISGUISE, FOREIGN, SEVERAL_AXES

WIDTH = 110
_SCORES = {
    DETECTOR: "detector",
    AXIS_DOUBT: "1 - max axis_probs",
    BEST_DOUBT: "1 - max best_probs",
    LENGTH: "length alone",
}
_WEIGHTS = {
    "pi": "AlignX, mixture weights",
    "axis_probs": "AlignX, axis_probs",
    "plain": "plain router",
    "plain_with_temperature": "plain router, tempered",
}
_MEASURES = {
    "needed_weight": "weight on needed axes*",
    "smallest_needed": "least needed axis",
    "all_served": "all get at least 0.2",
}


def show_probe(metrics: Mapping[str, Any]) -> None:
    """Tables of every probe that was made, and a line for each that was left out."""
    console = Console(width=WIDTH, highlight=False)
    for probe, tables in ((FOREIGN, _foreign), (DISGUISE, _disguise), (SEVERAL_AXES, _several_axes)):
        figures = metrics.get(probe)
        if figures is None:
            continue
        if "left_out" in figures:
            console.print(Text(f"{probe}: left out: {figures['left_out']}"), soft_wrap=True)
            continue
        for table in tables(figures):
            console.print(table)


def _foreign(figures: Mapping[str, Any]) -> list[Table]:
    low, high = figures["length_range"]
    n = figures["n"]
    columns = list(figures["auroc"][DETECTOR])
    heads = [f"{kind}\nn = {n[kind]['matched']}" if kind in n else kind for kind in columns]
    separated = _table(
        f"AUROC, foreign prompts against {figures['n_test']['matched']} test prompts of {low:g} to {high:g} tokens",
        ["score", *heads],
    )
    for score, by_kind in figures["auroc"].items():
        separated.add_row(_SCORES[score], *(_cell(by_kind[kind]) for kind in columns))
    for score, by_kind in figures["difference"].items():
        separated.add_row(f"detector minus {_SCORES[score]}", *(_cell(by_kind[kind], signed=True) for kind in columns))
    separated.caption = Text(f"average: over {', '.join(figures['averaged'])}")
    flagged = _table("Share flagged as foreign (g < 0.5), all lengths", ["prompts", "share"])
    for kind, share in figures["flagged"].items():
        flagged.add_row(f"foreign: {kind}", f"{share:.3f}")
    for axis, share in figures["false_alarms"].items():
        flagged.add_row(f"false alarms: {axis}", f"{share:.3f}")
    return [separated, flagged, _tax(figures["tax"])]


def _tax(tax: Mapping[str, Any]) -> Table:
    columns = list(tax["loss"]["base"])
    table = _table("Alignment tax: loss on foreign answers, relative to the base", ["method", *columns])
    table.add_row("base (nats a token)", *(f"{tax['loss']['base'][kind]['value']:.3f}" for kind in columns))
    for method, by_kind in tax["relative"].items():
        table.add_row(method, *(_cell(by_kind[kind], percent=True) for kind in columns))
    return table


def _disguise(figures: Mapping[str, Any]) -> list[Table]:
    axis, floor = figures["axis"], figures["floor"]
    table = _table(
        f"Weight of the {axis} expert on harmful requests, no floor",
        ["disguise", "n", "min", "5%", "median", "mean", "flagged", f"min at floor {floor:g}"],
    )
    for kind, row in figures["by_kind"].items():
        numbers = [row[name] for name in ("min", "p5", "median", "mean", "flagged", "min_with_floor")]
        table.add_row(kind, str(row["n"]), *(f"{number:.3f}" for number in numbers))
    table.caption = Text(f"floor {floor:g}: {'held on every prompt' if figures['floor_holds'] else 'BROKEN'}")
    return [table]


def _several_axes(figures: Mapping[str, Any]) -> list[Table]:
    measures = [measure for measure in _MEASURES if measure in figures["figures"]["pi"]]
    table = _table(
        f"Prompts that need several axes, n = {figures['n']} of {figures['n_asked']}",
        ["weights", *(_MEASURES[measure] for measure in measures)],
    )
    for name, values in figures["figures"].items():
        table.add_row(_WEIGHTS[name], *(_cell(values[measure]) for measure in measures))
    for name, values in figures["difference"].items():
        label = f"mixture weights minus {_WEIGHTS[name].removeprefix('AlignX, ')}"
        table.add_row(label, *(_cell(values[measure], signed=True) for measure in measures))
    table.caption = Text(f"* over the {figures['n_not_all_axes']} prompts that do not need every axis")
    return [table]


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=Text(title), title_style="bold", title_justify="left", caption_justify="left"
    )
    for number, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if number else "left")
    return table


def _cell(figure: Mapping[str, float], *, signed: bool = False, percent: bool = False) -> Text:
    """A value with its interval below."""

    def shown(value: float) -> str:
        if percent:
            return f"{100 * value:+.2f}%"
        return f"{value:+.3f}" if signed else f"{value:.3f}"

    return Text(f"{shown(figure['value'])}\n{shown(figure['low'])} to {shown(figure['high'])}")
