"""Small matrices as pictures: a number in every cell, its colour for the eye."""

from collections.abc import Sequence

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from alignx.report.svg import BLUE, INK, VERMILLION, house_style, inline_svg

_SIGNED = (BLUE, "#FFFFFF", VERMILLION)
_PLAIN = ("#FFFFFF", BLUE)
_LONG = 14  # letters of a name that a line holds


def heat_figure(
    values: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_head: str,
    column_head: str,
    title: str,
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
        row_head: what the rows are.
        column_head: what the columns are.
        title: of the picture.
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
        axes.imshow(values, cmap=colours, vmin=-top if is_signed else 0, vmax=top, aspect="auto")
        for at, row in enumerate(values):
            for to, value in enumerate(row):
                ink = "white" if abs(value) > 0.62 * top else INK
                axes.text(to, at, texts[at][to], ha="center", va="center", color=ink, fontsize=8.5)
        axes.set_xticks(range(len(columns)), [_broken(name) for name in columns], rotation=35, ha="right")
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
        axes.set_yticks(range(len(rows)), [_broken(name) for name in rows])
        axes.tick_params(length=0, labelsize=8.5)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(column_head, fontsize=8.5)
        axes.set_ylabel(row_head, fontsize=8.5)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        return inline_svg(figure, prefix=prefix, label=label)


def _broken(name: str) -> str:
    """A long name on several lines."""
    return "\n".join(name[at : at + _LONG] for at in range(0, len(name), _LONG))
