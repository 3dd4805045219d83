"""Metrics -> pictures, as SVG to stand inside a page. Several panels are several SVGs: the page lays them out.

Every picture's numbers are also in a table, and no colour says what a shape or a word does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from alignx.evaluate.measures import AVERAGE
from alignx.report.smoothing import moving_average, smoothing_window
from alignx.report.svg import BLUE, GREY, INK, PALETTE, VERMILLION, house_style, inline_svg
from alignx.report.wording import (
    ALIGNX,
    ORACLE_PREFIX,
    axes_of,
    method_label,
    number,
    ordered_methods,
    per_cent,
    shortened,
    signed_per_cent,
    signed_range,
    verdict_on,
)

_WIDTH = 4.4  # inches; small enough for text to stay readable when a phone shrinks the panel to its width
_ROW = 0.27
_NAME, _AXIS, _TITLE = 24, 15, 32  # letters of names that a picture has room for
_HATCHES = ("", "///", "...", "xxx")
_READ_OUTS = {
    "axis": "axis_probs: which axis is it from?",
    "best_expert": "best_probs: which expert is best?",
}
_TONES = {
    "better": (BLUE, "o", BLUE, "AlignX better"),
    "worse": (VERMILLION, "s", VERMILLION, "AlignX worse"),
    "not distinguishable": (GREY, "D", "white", "interval includes zero"),
    "unknown": (GREY, "X", "white", "no interval"),
}


def loss_figure(metrics: Mapping[str, Any], *, prefix: str = "loss") -> str:
    """Loss of every method with its 95% interval: one panel for the average, one an axis.

    Args:
        metrics: what `metrics.json` holds.
        prefix: of the SVGs' ids, once on a page.
    """
    methods = ordered_methods(metrics["loss"], axes_of(metrics))
    panels = []
    for at, column in enumerate((AVERAGE, *axes_of(metrics))):
        with house_style():
            figure = Figure(figsize=(_WIDTH, 0.95 + _ROW * len(methods)), layout="constrained")
            axes = figure.subplots()
            _loss_panel(axes, metrics, methods, column)
            # Over the whole picture: beside long names of methods the axes are too narrow for long names of axes.
            title = f"{shortened(column, _TITLE)} (n = {metrics['n'][column]})"
            figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
            label = _loss_label(metrics, methods, column)
            panels.append(inline_svg(figure, prefix=f"{prefix}-{at}", label=label))
    return "\n".join(panels)


def reliability_figure(metrics: Mapping[str, Any], *, prefix: str = "reliability") -> str:
    """Reliability diagrams of both read-outs, AlignX beside the plain router; points grow with their prompts."""
    panels = []
    for at, (question, title) in enumerate(_READ_OUTS.items()):
        found = metrics["calibration"][question]
        shown = {
            "AlignX": (found["alignx"], BLUE, "o", BLUE),
            "plain router": (found["plain"], VERMILLION, "s", "none"),
        }
        with house_style():
            figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
            axes = figure.subplots()
            _reliability_panel(axes, shown)
            axes.set_title(title)
            figure.legend(loc="outside lower center", ncols=1, fontsize=8.5)
            words = "; ".join(f"{name}: {_ece_words(one[0])}" for name, one in shown.items())
            panels.append(inline_svg(figure, prefix=f"{prefix}-{at}", label=f"Reliability diagram, {title} {words}."))
    return "\n".join(panels)


def mixture_figure(metrics: Mapping[str, Any], *, prefix: str = "mixture") -> str:
    """Mean mixture weights by the axis a prompt comes from, as stacked bars."""
    names, mean_pi = axes_of(metrics), metrics["routing"]["mean_pi"]
    with house_style():
        figure = Figure(figsize=(_WIDTH, 1.05 + 0.42 * len(names) + 0.2 * len(names)), layout="constrained")
        axes = figure.subplots()
        left = [0.0] * len(names)
        for at, to in enumerate(names):
            widths = [mean_pi[origin][to] for origin in names]
            colour, hatch = _fill(at)
            axes.barh(
                range(len(names)),
                widths,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=f"expert {shortened(to, _AXIS)}",
            )
            for row, width in enumerate(widths):
                if width >= 0.08:
                    ink = "white" if colour in {"#0072B2"} else "black"
                    middle = left[row] + width / 2
                    axes.text(middle, row, per_cent(width, 0), ha="center", va="center", color=ink, fontsize=8.5)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(names)), [f"prompts of\n{shortened(name, _AXIS)}" for name in names])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("mean mixture weight")
        figure.legend(
            loc="outside lower center", ncols=min(3 if max(map(len, names)) < 12 else 2, len(names)), fontsize=8.5
        )
        words = "; ".join(
            f"prompts of {origin}: " + ", ".join(f"{to} {per_cent(mean_pi[origin][to], 0)}" for to in names)
            for origin in names
        )
        return inline_svg(figure, prefix=prefix, label=f"Mean mixture weights. {words}.")


def versus_figure(metrics: Mapping[str, Any], *, prefix: str = "versus") -> str:
    """AlignX's loss minus the others', in per cent on average, with 95% intervals; coloured by what can be said."""
    methods = ordered_methods(metrics["alignx_versus"], axes_of(metrics))
    rows = [("own expert (regret)", metrics["regret"])]
    rows += [(method_label(method), metrics["alignx_versus"][method]) for method in methods]
    words = _difference_words(rows)
    svg_label = f"AlignX's loss minus that of other methods. {words}."
    return _difference_svg(
        rows, "AlignX", "AlignX's loss against the method's\n(left of zero: AlignX is better)", prefix, svg_label
    )


def difference_figure(found: Mapping[str, Any], *, prefix: str = "difference") -> str:
    """Loss of a second run minus a first one's, method by method, in per cent on average, with 95% intervals.

    Args:
        found: what `compare_runs` returned.
        prefix: of the SVG's ids, once on a page.
    """
    methods = ordered_methods(found["methods"], found["axes"])
    rows = [(method_label(method), found["difference"][method]) for method in methods]
    label = f"Loss of the second run minus that of the first. {_difference_words(rows)}."
    x_label = "second run's loss against the first's\n(left of zero: the second is better)"
    return _difference_svg(rows, "second", x_label, prefix, label)


def _difference_words(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return "; ".join(
        f"{name}: {signed_per_cent(found[AVERAGE])} ({signed_range(found['interval'])})" for name, found in rows
    )


def _difference_svg(
    rows: Sequence[tuple[str, Mapping[str, Any]]], ours: str, x_label: str, prefix: str, label: str
) -> str:
    """One row a relative difference with its interval; `ours` is who is better left of zero."""
    with house_style():
        figure = Figure(figsize=(_WIDTH, 1.35 + 0.4 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9)
        named: set[str] = set()
        left, right = _scale_of(rows)
        for row, (_, found) in enumerate(rows):
            value, (low, high) = found[AVERAGE], found["interval"]
            verdict = verdict_on(value, low, high)
            colour, marker, face, name = _TONES[verdict]
            if not left <= value <= right:
                inside = 0.03 * (right - left)
                edge, arrow = (left + inside, "<") if value < left else (right - inside, ">")
                axes.plot([edge], [row], arrow, color=colour, markersize=8)
                continue
            axes.plot([low, high], [row, row], color=colour, linewidth=1.6)
            legend = "" if verdict in named else name.replace("AlignX", ours)
            axes.plot([value], [row], marker, color=colour, markerfacecolor=face, markersize=5.5, label=legend)
            named.add(verdict)
        values = [f"{signed_per_cent(found[AVERAGE])} ({signed_range(found['interval'])})" for _, found in rows]
        axes.set_yticks(
            range(len(rows)),
            [f"{shortened(name, _NAME)}\n{value}" for (name, _), value in zip(rows, values, strict=True)],
        )
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x")
        axes.set_xlim(left, right)
        axes.margins(y=0.06)
        axes.set_xlabel(x_label)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
        return inline_svg(figure, prefix=prefix, label=label)


def training_figure(losses: Mapping[str, Sequence[float]], *, prefix: str = "training") -> str:
    """Training loss by optimiser step, one panel an adapter: every step as a dot, a moving average as a line.

    Args:
        losses: adapter -> its losses in nats per target token; adapters without any are left out.
        prefix: of the SVGs' ids, once on a page.
    """
    shown = {name: list(values) for name, values in losses.items() if values}
    if not shown:
        return ""
    top = max(max(values) for values in shown.values())
    bottom = min(min(values) for values in shown.values())
    room = 0.05 * (top - bottom or 1)
    panels = []
    for at, (name, values) in enumerate(shown.items()):
        window = smoothing_window(len(values))
        smooth = moving_average(values, window)
        steps = range(1, len(values) + 1)
        with house_style():
            figure = Figure(figsize=(3.4, 2.3), layout="constrained")
            axes = figure.subplots()
            axes.plot(steps, values, ".", color=GREY, alpha=0.45, markersize=3)
            axes.plot(steps, smooth, color=BLUE, linewidth=1.6)
            axes.set_title(shortened(name, _NAME))
            axes.set_ylim(bottom - room, top + room)
            axes.set_xlabel(f"optimiser step (line: moving average of {window})", fontsize=8)
            axes.set_ylabel("nats per token", fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.grid(axis="y")
            label = f"Training loss of {name}: from {number(smooth[0], 2)} to {number(smooth[-1], 2)} nats per token."
            panels.append(inline_svg(figure, prefix=f"{prefix}-{at}", label=label))
    return "\n".join(panels)


def _scale_of(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[float, float]:
    """Ends of the difference axis. One value far beyond all others does not squeeze them: it becomes an arrow."""
    by_size = sorted((found for _, found in rows), key=lambda found: abs(found[AVERAGE]))
    shown = by_size
    if len(by_size) > 2 and abs(by_size[-1][AVERAGE]) > 1.5 * max(map(abs, by_size[-2]["interval"])):
        shown = by_size[:-1]
    low = min(0.0, *(found["interval"][0] for found in shown))
    high = max(0.0, *(found["interval"][1] for found in shown))
    room = 0.08 * (high - low) or 0.01
    return low - room, high + room


def _loss_panel(axes: Axes, metrics: Mapping[str, Any], methods: Sequence[str], column: str) -> None:
    if ALIGNX in methods:
        axes.axvline(metrics["loss"][ALIGNX][column], color=BLUE, linewidth=0.8, linestyle=(0, (4, 3)))
    for row, method in enumerate(methods):
        value, (low, high) = metrics["loss"][method][column], metrics["loss_interval"][method][column]
        is_ours = method == ALIGNX
        colour = BLUE if is_ours else GREY
        face = "white" if method.startswith(ORACLE_PREFIX) else colour
        axes.plot([low, high], [row, row], color=colour, linewidth=2.2 if is_ours else 1.4)
        axes.plot([value], [row], "o", color=colour, markerfacecolor=face, markersize=6 if is_ours else 5)
    axes.set_yticks(range(len(methods)), [shortened(method_label(method), _NAME) for method in methods])
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        if method == ALIGNX:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.invert_yaxis()
    axes.margins(y=0.04)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("nats per target token")


def _loss_label(metrics: Mapping[str, Any], methods: Sequence[str], column: str) -> str:
    words = ", ".join(f"{method_label(method)} {number(metrics['loss'][method][column])}" for method in methods)
    return f"Loss by method, {column}, nats per target token: {words}."


def _reliability_panel(axes: Axes, shown: Mapping[str, tuple[Mapping[str, Any], str, str, str]]) -> None:
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="perfectly calibrated")
    most = max(point[2] for found, *_ in shown.values() for point in found["reliability"])
    lowest = 1.0
    for name, (found, colour, marker, face) in shown.items():
        confidence, accuracy, count = zip(*found["reliability"], strict=True)
        lowest = min(lowest, *confidence)
        axes.plot(confidence, accuracy, color=colour, linewidth=0.8, alpha=0.5)
        axes.scatter(
            confidence,
            accuracy,
            s=[14 + 90 * one / most for one in count],
            marker=marker,
            facecolors=face,
            edgecolors=colour,
            alpha=0.85,
            clip_on=False,
            zorder=3,
        )
        axes.plot([], [], marker, color=colour, markerfacecolor=face, label=f"{name}: {_ece_words(found)}")
    left = max(0.0, int(lowest * 10 - 0.3) / 10)
    axes.set_xlim(left, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("confidence (stated probability)")
    axes.set_ylabel("accuracy (share that was right)")
    axes.grid()


def _ece_words(found: Mapping[str, Any]) -> str:
    return f"ECE {number(found['ece'])} (perfect p95 {number(found['perfect_p95'])})"


def _fill(at: int) -> tuple[str, str]:
    """Colour and hatch of the at-th axis; hatches tell axes apart once the colours are used up."""
    return PALETTE[at % len(PALETTE)], _HATCHES[at // len(PALETTE) % len(_HATCHES)]
