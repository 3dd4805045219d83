"""The sweep of the dial as a section of the report."""

from collections.abc import Mapping
from typing import Any

from alignx.report.section import Picture, Section
from alignx.report.tradeoff import front_table, sentences, tradeoff_tables
from alignx.report.tradeoff_figures import dial_figure, pair_figure, triangle_figure

DIAL_CAPTION = (
    "What every axis's own measure does as one axis's weight is turned and the others stay at 1, from the worst (0%) "
    "to the best (100%) of all swept and fixed mixtures, over the mean share that the turned axis's expert gets on its "
    "own prompts. Thick: the axis that is turned. Vertical line: the dial at rest."
)
TRIANGLE_CAPTION = (
    "Every axis's measure over the shares of all weights: in a corner one axis is on alone, in the middle all weigh "
    "the same. Dots are settings that were scored, the star is the best of them."
)
PAIR_CAPTION = (
    "Two axes at a time, in shares of their ranges. The line is what the dial can reach at best on these two, the "
    "dashed one what fixed mixtures can; with more than two axes a setting may be on the front for another axis's sake "
    "and lie below the line here."
)


def tradeoff_section(metrics: Mapping[str, Any]) -> Section:
    """What a report says and shows of a sweep.

    Args:
        metrics: what `eval/tradeoff/metrics.json` holds.
    """
    dial, triangle, pair = (
        draw(metrics, prefix=f"sweep-{name}")
        for name, draw in (("dial", dial_figure), ("triangle", triangle_figure), ("pair", pair_figure))
    )
    pictures = [Picture(dial, DIAL_CAPTION, "many")]
    pictures += [Picture(triangle, TRIANGLE_CAPTION, "small")] if triangle else []
    pictures += [Picture(pair, PAIR_CAPTION, "many")]
    return Section("dial", "The dial", sentences(metrics), [*pictures, *tradeoff_tables(metrics), front_table(metrics)])
