"""Pictures of how experts lie to each other. Every number that matters is also printed."""

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from alignx.report.svg import BLUE, GREY, INK, PALETTE, VERMILLION, house_style
from alignx.runs.files import write_text

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_SIDES = {
    "input": "what updates read (row spaces)",
    "output": "what updates write (column spaces)",
    "prompts": "prompts through their expert (latent space)",
}
_LEGEND_PAIRS = 15


def write_pictures(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what an inspection found, as SVG files; what there is nothing of is left out.

    Args:
        found: what `inspect_run` returned.
        folder: where the files go.

    Returns:
        The files written.
    """
    drawings: dict[str, tuple[bool, Callable[[Mapping[str, Any]], Figure]]] = {
        "cosines": (len(_names(found)) > 1, cosine_figure),
        "layer_norms": (bool(_names(found)) and bool(found["vectors"]["norms_by_layer"]), layer_figure),
        "principal_angles": (any(_shown_sides(found)), angle_figure),
        "signatures": (any(len(points[0]) > 1 for points in found["signatures"].values()), signature_figure),
    }
    written = []
    for name, (possible, draw) in drawings.items():
        path = folder / f"{name}.svg"
        if possible:
            with house_style():
                write_text(path, _svg(draw(found)))
            written.append(path)
    return written


def cosine_figure(found: Mapping[str, Any]) -> Figure:
    """Cosines between task vectors, exact, as a heat map with numbers."""
    names, cosines = _names(found), found["vectors"]["cosines"]
    size = 1.5 + 0.62 * len(names)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("signed", [VERMILLION, "#FFFFFF", BLUE])
    image = axes.imshow(cosines, cmap=colours, vmin=-1, vmax=1)
    for row, values in enumerate(cosines):
        for column, value in enumerate(values):
            ink = "white" if abs(value) > 0.65 else INK
            axes.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Cosines between task vectors")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-1, 0, 1])
    bar.outline.set_visible(False)
    return figure


def layer_figure(found: Mapping[str, Any]) -> Figure:
    """Norm of every task vector by layer."""
    names, by_layer = _names(found), found["vectors"]["norms_by_layer"]
    layers = [int(layer) for layer in by_layer]
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    axes = figure.subplots()
    for at, name in enumerate(names):
        norms = [values[at] for values in by_layer.values()]
        colour, marker, _ = _look(at)
        axes.plot(layers, norms, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("norm of the update")
    axes.set_title("Where the experts changed the model")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=_columns(names, figure), fontsize=8.5)
    return figure


def angle_figure(found: Mapping[str, Any]) -> Figure:
    """Principal angles of every pair, the smallest first; one panel for updates' inputs, outputs and for prompts."""
    sides = _shown_sides(found)
    figure = Figure(figsize=(0.6 + 3.0 * len(sides), 3.9), layout="constrained")
    panels = figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
    pairs = [entry for entry in found["angles"] if any(entry[side] for side in sides)]
    for axes, side in zip(panels, sides, strict=True):
        for at, entry in enumerate(pairs):
            if entry[side] is not None:
                _angle_curve(axes, entry[side]["curve"], at)
        axes.axhline(90, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_ylim(0, 95)
        axes.set_yticks(range(0, 91, 15))
        axes.set_title(_SIDES[side].replace(" (", "\n("), fontsize=9)
        axes.set_xlabel("angle, smallest first")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y")
    panels[0].set_ylabel("degrees (90: nothing shared)")
    if len(pairs) <= _LEGEND_PAIRS:
        shown = [(_look(at), " and ".join(entry["pair"])) for at, entry in enumerate(pairs)]
        handles = [Line2D([], [], color=c, marker=m, linestyle=d, markersize=4) for (c, m, d), _ in shown]
        labels = [label for _, label in shown]
        figure.legend(handles, labels, loc="outside lower center", ncols=_columns(labels, figure), fontsize=8.5)
    return figure


def signature_figure(found: Mapping[str, Any]) -> Figure:
    """Training prompts as the base model sees them, on the first two latent directions of the deepest depth."""
    figure = Figure(figsize=(4.8, 4.4), layout="constrained")
    axes = figure.subplots()
    shown = {axis: points for axis, points in found["signatures"].items() if len(points[0]) > 1}
    for at, (axis, points) in enumerate(shown.items()):
        colour, marker, _ = _look(at)
        across, up = zip(*(point[:2] for point in points), strict=True)
        most = max(map(len, shown.values()))
        axes.scatter(
            across,
            up,
            s=26 if most < 300 else 10,
            marker=marker,
            facecolors=colour,
            edgecolors="white",
            linewidths=0.4,
            alpha=0.8,
            label=f"{axis} (n = {len(points)})",
        )
    axes.set_xlabel("first latent direction")
    axes.set_ylabel("second latent direction")
    axes.set_title(f"Training prompts at layer {found['latent']['layers'][-1]}")
    axes.margins(0.06)
    axes.grid()
    labels = [f"{axis} (n = {len(points)})" for axis, points in shown.items()]
    figure.legend(loc="outside lower center", ncols=_columns(labels, figure), fontsize=8.5, markerscale=1.3)
    return figure


def _names(found: Mapping[str, Any]) -> list[str]:
    return list(found["vectors"]["names"]) if found["vectors"] else []


def _shown_sides(found: Mapping[str, Any]) -> list[str]:
    return [side for side in _SIDES if any(entry[side] for entry in found["angles"])]


def _angle_curve(axes: Axes, curve: Sequence[float], at: int) -> None:
    colour, marker, dashes = _look(at)
    # One point a curve is a dot; many points are a line whose markers would run together.
    size = 4 if len(curve) <= 20 else 0
    axes.plot(
        range(1, len(curve) + 1), curve, color=colour, marker=marker, markersize=size, linestyle=dashes, linewidth=1.4
    )


def _look(at: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of the at-th line; once the colours are used up, markers and dashes change too."""
    return (
        PALETTE[at % len(PALETTE)],
        _MARKERS[(at + at // len(PALETTE)) % len(_MARKERS)],
        _DASHES[at // len(PALETTE) % len(_DASHES)],
    )


def _columns(labels: Sequence[str], figure: Figure) -> int:
    """Columns of a legend that fit the figure's width: a letter takes about 0.07 inches, a sign and its room 0.6."""
    room = figure.get_figwidth() / (0.6 + 0.07 * max(map(len, labels)))
    return max(1, min(len(labels), int(room)))


def _svg(figure: Figure) -> str:
    """A figure as a file of its own; equal figures give equal bytes."""
    buffer = StringIO()
    with mpl.rc_context({"svg.hashsalt": "alignx"}):
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None},
            facecolor="white",
            bbox_inches="tight",  # long names are never cut off
            pad_inches=0.12,
        )
    return buffer.getvalue()
