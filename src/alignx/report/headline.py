"""The headline: every method's own measures and their average in one table, and a bar picture of each method."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from alignx.evaluate.measures import AVERAGE
from alignx.report.judges import average_tables
from alignx.report.section import Picture, Section
from alignx.report.svg import BLUE, GREY, INK, house_style, inline_svg
from alignx.report.tables import MEASURES, Cell, Column, Row, Table
from alignx.report.wording import (
    ALIGNX,
    BASE,
    axes_of,
    is_main,
    method_label,
    number,
    number_range,
    ordered_methods,
    shortened,
    signed_per_cent,
    signed_range,
)

_LONG = 16  # letters of an axis's name that fit beside its bar


def headline_section(metrics: Mapping[str, Any]) -> Section:
    """The section: averages of the judges, table, then a panel of bars a method where measures are percentages."""
    blocks: list[Table | Picture] = [headline_table(metrics)]
    svg = profile_figure(metrics)
    if svg:
        blocks.append(
            Picture(
                svg,
                "Each method's own measures, in per cent, higher is better, with 95% intervals; the black tick is the "
                "base model. One scale for all panels.",
                "small",
            )
        )
    return Section("headline", "Methods at a glance", blocks=[*average_tables(metrics), *blocks])


def headline_table(metrics: Mapping[str, Any]) -> Table:
    """Main methods: average loss, the same against the base, each axis's own measure, and their average."""
    axes = axes_of(metrics)
    chosen = _chosen(metrics)
    methods = [method for method in ordered_methods(metrics["likelihood"], axes) if is_main(method)]
    rows = [
        Row(
            method,
            method_label(method),
            (
                Cell(
                    number(metrics["loss"][method][AVERAGE]), number_range(*metrics["loss_interval"][method][AVERAGE])
                ),
                *(_measure_cell(metrics, method, axis, name) for axis, name in chosen.items()),
                _average_cell(metrics["likelihood"][method]),
                _versus_cell(metrics, method),
            ),
            method == ALIGNX,
        )
        for method in methods
    ]
    columns = [
        Column("loss, average (lower)", metrics["n"][AVERAGE]),
        *(Column(f"{axis}: {MEASURES.get(name, 'loss (lower)')}", metrics["n"][axis]) for axis, name in chosen.items()),
        Column("average"),
        Column("AlignX's loss against it"),
    ]
    return Table(
        "Headline: the axes' own measures by the likelihood judge, with 95% intervals",
        "method",
        tuple(columns),
        tuple(rows),
        "Measures are per cent, higher is better, unless a column says otherwise; the average weighs every axis the "
        "same and has no interval. Last column: average of the axes, paired by prompt; negative: AlignX is better.",
    )


def profile_figure(metrics: Mapping[str, Any], *, prefix: str = "profile") -> str:
    """A panel of bars a main method: the axes' own measures and their average, in per cent; empty without any.

    Args:
        metrics: what `metrics.json` holds.
        prefix: of the SVGs' ids.
    """
    axes = axes_of(metrics)
    chosen = {axis: name for axis, name in _chosen(metrics).items() if name in MEASURES}
    if not chosen:
        return ""
    methods = [method for method in ordered_methods(metrics["likelihood"], axes) if is_main(method)]
    panels = []
    for at, method in enumerate(methods):
        bars = _bars(metrics["likelihood"][method], chosen)
        marks = {name: value for name, value, _ in _bars(metrics["likelihood"].get(BASE, {}), chosen)}
        with house_style():
            figure = Figure(figsize=(3.6, 0.75 + 0.46 * len(bars)), layout="constrained")
            panel = figure.subplots()
            for row, (name, value, interval) in enumerate(bars):
                panel.barh(row, value, color=BLUE if method == ALIGNX else "#9FB4C2", height=0.62)
                if interval is not None:
                    panel.plot(interval, [row, row], color=INK, linewidth=1.1)
                if name in marks and method != BASE:
                    panel.plot([marks[name]] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=2)
                panel.text(103, row, number(value, 1), va="center", fontsize=8.5)
            panel.set_yticks(range(len(bars)), [name.replace(": ", "\n", 1) for name, *_ in bars])
            panel.tick_params(axis="y", length=0, labelsize=8.5)
            panel.set_xlim(0, 120)
            panel.set_xticks([0, 25, 50, 75, 100])
            panel.spines["bottom"].set_color(GREY)
            panel.invert_yaxis()
            panel.grid(axis="x")
            figure.suptitle(shortened(method_label(method), 32), x=0.01, ha="left", fontsize=10, fontweight="bold")
            words = ", ".join(f"{name} {number(value, 1)}" for name, value, _ in bars)
            panels.append(inline_svg(figure, prefix=f"{prefix}-{at}", label=f"{method_label(method)}: {words}."))
    return "\n".join(panels)


def _chosen(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Axis -> the figure that stands for it; of figures made before axes named theirs, the first that is there."""
    if "metric" in metrics:
        return dict(metrics["metric"])
    ours: Mapping[str, Any] = metrics["likelihood"].get(ALIGNX, {})
    order = ("mc2", "safe_preferred", "win_rate")
    return {axis: next((name for name in order if name in ours.get(axis, {})), "win_rate") for axis in axes_of(metrics)}


def _measure_cell(metrics: Mapping[str, Any], method: str, axis: str, name: str) -> Cell:
    if name not in MEASURES:
        return Cell(number(metrics["loss"][method][axis]), number_range(*metrics["loss_interval"][method][axis]))
    found = metrics["likelihood"][method].get(axis, {}).get(name)
    return (
        Cell("none") if found is None else Cell(number(found["value"], 1), number_range(*found["interval"], digits=1))
    )


def _average_cell(by_axis: Mapping[str, Any]) -> Cell:
    return Cell(number(by_axis[AVERAGE], 1)) if AVERAGE in by_axis else Cell("none")


def _versus_cell(metrics: Mapping[str, Any], method: str) -> Cell:
    found = metrics["alignx_versus"].get(method)
    if found is None:
        return Cell("")
    low, high = found["interval"]
    tone = "better" if high < 0 else "worse" if low > 0 else ""
    return Cell(signed_per_cent(found[AVERAGE]), signed_range(found["interval"]), tone)


def _bars(by_axis: Mapping[str, Any], chosen: Mapping[str, str]) -> list[tuple[str, float, Sequence[float] | None]]:
    """Name, value and interval of each bar, the average last."""
    bars: list[tuple[str, float, Sequence[float] | None]] = []
    for axis, name in chosen.items():
        found = by_axis.get(axis, {}).get(name)
        if found is not None:
            bars.append((f"{shortened(axis, _LONG)}: {MEASURES[name]}", found["value"], found["interval"]))
    if AVERAGE in by_axis:
        bars.append((AVERAGE, by_axis[AVERAGE], None))
    return bars
