"""Small matrices as pictures: a number in every cell, its colour for the eye."""

from collections.abc import Sequence

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from alignx.report.svg import BLUE, GREY, INK, VERMILLION, house_style, inline_svg
from alignx.report.wording import shortened

_SIGNED = (BLUE, "#FFFFFF", VERMILLION)
_PLAIN = ("#FFFFFF", BLUE)
_LONG = 14  # letters of a name that there is room for


def heat_figure(
    values: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    legend: str,
    label: str,
    prefix: str,
    top: float,
    is_signed: bool,
) -> str:
    """A matrix as an SVG.

    Args:
        values: what is coloured.
        texts: what stands in the cells.
        rows: names of the rows.
        columns: names of the columns.
        title: of the picture.
        legend: what rows and columns are; below the title.
        label: for readers who do not see it.
        prefix: of the SVG's ids.
        top: value of the deepest colour; signed values are cut at both ends.
        is_signed: whether values go below zero, blue, and above it, vermillion.
    """
    with house_style():
        longest = max(min(len(name), _LONG) for name in rows)
        figure = Figure(
            figsize=(1.2 + 0.07 * longest + 0.78 * len(columns), 1.5 + 0.48 * len(rows)), layout="constrained"
        )
        axes = figure.subplots()
        colours = LinearSegmentedColormap.from_list("house", _SIGNED if is_signed else _PLAIN)
        # A mesh stays a drawing where an image would be embedded as pixels.
        axes.pcolormesh(range(len(columns)), range(len(rows)), values, cmap=colours, vmin=-top * is_signed, vmax=top)
        axes.invert_yaxis()
        for at, row in enumerate(values):
            for to, value in enumerate(row):
                ink = "white" if abs(value) > 0.62 * top else INK
                axes.text(to, at, texts[at][to], ha="center", va="center", color=ink, fontsize=8.5)
        axes.set_xticks(range(len(columns)), [shortened(name, _LONG) for name in columns], rotation=35, ha="right")
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
        axes.set_yticks(range(len(rows)), [shortened(name, _LONG) for name in rows])
        axes.tick_params(length=0, labelsize=8.5)
        axes.spines[:].set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        axes.set_title(legend, fontsize=8.5, fontweight="normal", x=0, ha="left", color=GREY)
        return inline_svg(figure, prefix=prefix, label=label)
