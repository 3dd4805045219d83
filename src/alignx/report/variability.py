"""How far figures move, printed beside the published ten per cent."""

from collections.abc import Mapping
from typing import Any

from alignx.evaluate.measures import AVERAGE
from alignx.report.section import Section
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import ALIGNX, method_label, number, ordered_methods

_ONE_SEED = "Only one seed: give a second run with `alignx variability RUN --beside RUN2` to see how far seeds differ."


def variability_section(found: Mapping[str, Any] | None) -> Section | None:
    """The section, or none where nothing was measured."""
    if found is None:
        return None
    return Section("variability", "Variability", variability_sentences(found), variability_tables(found))


def variability_sentences(found: Mapping[str, Any]) -> list[str]:
    """The largest spreads beside the published figure."""
    published = number(found["published_per_cent"], 0)
    n = sum(found["n"].values())
    sentences = [
        f"Published: figures may vary by {published}% with hardware.",
        f"Precision (float32, bf16) and batch size (1, 8) on the same {n} answers: no average loss moves by more than "
        f"{_largest(found['spread'])}, no difference between AlignX and another method by more than "
        f"{number(max(found['versus'].values(), default=0.0), 3)} percentage points, and no single answer's loss by "
        f"more than {_shown(found['largest_of_one_answer'])}.",
    ]
    seeds = found["seeds"]
    if seeds is None:
        return [*sentences, _ONE_SEED]
    sentences.append(
        f"Seeds {seeds['seeds'][0]} and {seeds['seeds'][1]}, each evaluated on its own test split: no average loss "
        f"differs by more than {_largest(seeds['spread'])}, no difference between AlignX and another method by more "
        f"than {number(max(seeds['versus'].values(), default=0.0), 2)} percentage points."
    )
    if seeds["also_differing"]:
        sentences.append(f"The two runs also differ in {', '.join(seeds['also_differing'])}.")
    return sentences


def variability_tables(found: Mapping[str, Any]) -> list[Table]:
    """Average loss at every setting with its spread, and likewise for the seeds."""
    axes = list(found["n"])
    methods = ordered_methods(found["spread"], axes)
    heads = [f"{one['precision']}, batch {one['batch_size']}" for one in found["settings"]]
    tables = [
        _table(
            "Loss on the average of the axes by precision and batch size, nats per target token",
            heads,
            [one["loss"] for one in found["settings"]],
            found["spread"],
            found["versus"],
            methods,
            axes,
            f"The same {sum(found['n'].values())} reference answers each time; prompts are routed once.",
        )
    ]
    seeds = found["seeds"]
    if seeds is not None:
        tables.append(
            _table(
                "Loss on the average of the axes by seed, nats per target token",
                [f"seed {seed} (n = {n[AVERAGE]})" for seed, n in zip(seeds["seeds"], seeds["n"], strict=True)],
                seeds["loss"],
                seeds["spread"],
                seeds["versus"],
                ordered_methods(seeds["spread"], axes),
                axes,
                "Seeds have splits of their own, so other test prompts are part of this spread.",
            )
        )
    return tables


def _table(
    caption: str,
    heads: list[str],
    losses: list[Mapping[str, Mapping[str, float]]],
    spread: Mapping[str, Mapping[str, float]],
    versus: Mapping[str, float],
    methods: list[str],
    axes: list[str],
    note: str,
) -> Table:
    rows = tuple(
        Row(
            method,
            method_label(method),
            (
                *(Cell(number(table[method][AVERAGE], 4)) for table in losses),
                Cell(_shown(spread[method][AVERAGE])),
                Cell(_shown(max(spread[method][axis] for axis in axes))),
                Cell("" if method == ALIGNX else number(versus[method], 3)),
            ),
            method == ALIGNX,
        )
        for method in methods
    )
    columns = (*heads, "spread", "largest of an axis", "AlignX against it, points")
    return Table(
        caption,
        "method",
        tuple(Column(title) for title in columns),
        rows,
        f"Spread: largest minus smallest, in per cent of the mean; published: 10%. {note} Last column: how far the "
        "difference to AlignX moves, in percentage points.",
    )


def _largest(spread: Mapping[str, Mapping[str, float]]) -> str:
    return _shown(max(columns[AVERAGE] for columns in spread.values()))


def _shown(per_cent: float) -> str:
    return f"{number(per_cent, 3 if per_cent < 1 else 1)}%"
