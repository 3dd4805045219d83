"""Axis collapse, looked for in four places: what experts forget, how they lie to each other, and where routing errs."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.report.heatmaps import heat_figure
from alignx.report.section import Picture, Section
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import (
    ALIGNX,
    BASE,
    EXPERT_PREFIX,
    JOINT,
    axes_of,
    method_label,
    number,
    per_cent,
    signed_per_cent,
)

_SIDES = {"input": "reads", "output": "writes", "prompts": "prompts"}


def diagnosis_section(
    metrics: Mapping[str, Any], geometry: Mapping[str, Any] | None, *, name: str = "diagnosis"
) -> Section:
    """The section of one evaluation.

    Args:
        metrics: what `metrics.json` holds.
        geometry: what `expert_geometry` returned; none where experts cannot be read.
        name: of the section, and start of its pictures' ids.
    """
    sentences = [
        "When one axis is learned at the cost of another, it shows here: an expert that forgets other axes, experts "
        "that change the model in opposite directions, or a router that mistakes one axis for another.",
        *_findings(metrics, geometry),
    ]
    blocks: list[Table | Picture] = [Picture(_pictures(metrics, geometry, name), _caption(geometry), "many")]
    blocks += forgetting_tables(metrics)
    if geometry is not None and geometry["vectors"] is not None:
        blocks += geometry_tables(geometry)
    return Section(name, "Axis collapse: forgetting, geometry, misrouting", sentences, blocks)


def forgetting(metrics: Mapping[str, Any], against: str) -> dict[str, dict[str, float]]:
    """Expert's axis -> axis of the prompts -> the expert's loss over another's, minus 1.

    Args:
        metrics: what `metrics.json` holds.
        against: `base`, or `own` for each column's own expert.
    """
    axes, loss = axes_of(metrics), metrics["loss"]
    return {
        trained: {
            tested: loss[EXPERT_PREFIX + trained][tested]
            / loss[BASE if against == BASE else EXPERT_PREFIX + tested][tested]
            - 1
            for tested in axes
        }
        for trained in axes
    }


def forgetting_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """The forgetting matrix against the base, with AlignX and the joint LoRA below, and against own experts."""
    axes, loss = axes_of(metrics), metrics["loss"]
    columns = tuple(Column(f"on {axis}", metrics["n"][axis]) for axis in axes)
    against_base = [
        Row(trained, f"trained on {trained}", tuple(_tinted(value) for value in row.values()))
        for trained, row in forgetting(metrics, BASE).items()
    ]
    against_base += [
        Row(
            method,
            method_label(method),
            tuple(_tinted(loss[method][axis] / loss[BASE][axis] - 1) for axis in axes),
            method == ALIGNX,
        )
        for method in (JOINT, ALIGNX)
        if method in loss
    ]
    against_own = tuple(
        Row(trained, f"trained on {trained}", tuple(_tinted(value) for value in row.values()))
        for trained, row in forgetting(metrics, "own").items()
    )
    return [
        Table(
            "Forgetting matrix: loss against the base model, in per cent; above zero is forgotten",
            "expert",
            columns,
            tuple(against_base),
            "Rows: what an expert was trained on; columns: whose test prompts it answers.",
        ),
        Table(
            "The same against the expert of the column's own axis",
            "expert",
            columns,
            against_own,
            "What a prompt loses when it is sent to the wrong expert.",
        ),
    ]


def geometry_tables(geometry: Mapping[str, Any]) -> list[Table]:
    """Norms and cosines of task vectors, and the principal angles of every pair."""
    vectors = geometry["vectors"]
    names = vectors["names"]
    cosines = [
        Row(
            one,
            one,
            (Cell(number(vectors["norms"][at], 2)), *(Cell(_cosine(value)) for value in vectors["cosines"][at])),
        )
        for at, one in enumerate(names)
    ]
    tables = [
        Table(
            "Task vectors: norm, and cosine to each other",
            "task vector",
            (Column("norm"), *(Column(f"cosine to {other}") for other in names)),
            tuple(cosines),
            "Exact, over all adapted modules. Near 0: nothing in common; below 0: one undoes the other.",
        )
    ]
    pairs = [entry for entry in geometry["angles"] if any(entry[side] for side in _SIDES)]
    if pairs:
        rows = [
            Row(
                " ".join(entry["pair"]),
                " and ".join(entry["pair"]),
                tuple(_angle(entry[side]) for side in _SIDES),
            )
            for entry in pairs
        ]
        heads = ("what updates read", "what updates write", "prompts through their experts")
        tables.append(
            Table(
                "Principal angles: mean in degrees, 90 is nothing shared",
                "pair",
                tuple(Column(head) for head in heads),
                tuple(rows),
                "With each angle: overlap, the share of one subspace that lies in the other, and what random subspaces "
                "of that size overlap. Experts of one seed start from the same A, so what they read overlaps before "
                "anything is learned; what they write starts from zero.",
            )
        )
    return tables


def _angle(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell("none")
    return Cell(number(found["mean"], 1), f"overlap {number(found['overlap'])}, chance {number(found['chance'])}")


def _cosine(value: float) -> str:
    return number(round(value, 2) + 0.0, 2).replace("-", "\N{MINUS SIGN}")


def _tinted(value: float) -> Cell:
    rounded = round(value, 4)
    return Cell(signed_per_cent(value), tone="worse" if rounded > 0 else "better" if rounded < 0 else "")


def _findings(metrics: Mapping[str, Any], geometry: Mapping[str, Any] | None) -> list[str]:
    """The worst case of each kind, in words."""
    axes = axes_of(metrics)
    found = []
    others = [
        (value, trained, tested)
        for trained, row in forgetting(metrics, BASE).items()
        for tested, value in row.items()
        if trained != tested
    ]
    if others:
        value, trained, tested = max(others)
        if value > 0:
            found.append(
                f"Most forgotten: the expert trained on {trained} has {signed_per_cent(value)} loss on {tested} "
                "prompts against the base."
            )
        else:
            found.append(
                "No expert forgets another axis: each has a lower loss than the base on every axis's prompts "
                f"(closest: {trained} on {tested}, {signed_per_cent(value)})."
            )
    confusion = metrics["routing"]["confusion"]
    missed = [
        (confusion[at][to] / sum(confusion[at]), axis, other)
        for at, axis in enumerate(axes)
        for to, other in enumerate(axes)
        if at != to and sum(confusion[at])
    ]
    if missed:
        share, axis, other = max(missed)
        if share > 0:
            found.append(f"Most often misrouted: {per_cent(share)} of {axis} prompts are taken for {other}.")
        else:
            found.append("No test prompt is taken for another axis's.")
    if geometry is not None and geometry["vectors"] is not None:
        names, cosines = geometry["vectors"]["names"], geometry["vectors"]["cosines"]
        pairs = [
            (cosines[at][to], one, names[to])
            for at, one in enumerate(names)
            for to in range(at)
            if one in axes and names[to] in axes
        ]
        if pairs:
            (low, *least), (high, *most) = min(pairs), max(pairs)
            found.append(
                f"Cosines between the axes' task vectors lie between {_cosine(low)} ({' and '.join(least)}) and "
                f"{_cosine(high)} ({' and '.join(most)})."
            )
    return found


def _caption(geometry: Mapping[str, Any] | None) -> str:
    text = (
        "First: loss of each expert on each axis's prompts against the base; vermillion is forgotten, blue is learned. "
        "Second: share of each axis's prompts by the axis they are taken for."
    )
    return text if geometry is None else f"{text} Last: cosines between task vectors, exact."


def _pictures(metrics: Mapping[str, Any], geometry: Mapping[str, Any] | None, prefix: str) -> str:
    axes = axes_of(metrics)
    matrix = forgetting(metrics, BASE)
    values = [[matrix[trained][tested] for tested in axes] for trained in axes]
    panels = [
        heat_figure(
            values,
            [[signed_per_cent(value, 1) for value in row] for row in values],
            rows=axes,
            columns=axes,
            title="Loss against the base",
            legend="rows: trained on; columns: tested on",
            label=f"Forgetting matrix. {_words(axes, values, 'tested on', signed=True)}",
            prefix=f"{prefix}-forgetting",
            top=max(0.01, *(abs(value) for row in values for value in row)),
            is_signed=True,
        )
    ]
    shares = [[count / max(1, sum(row)) for count in row] for row in metrics["routing"]["confusion"]]
    panels.append(
        heat_figure(
            shares,
            [[per_cent(value, 0) for value in row] for row in shares],
            rows=axes,
            columns=axes,
            title="Routing",
            legend="rows: prompts of; columns: taken for",
            label=f"Confusion of the router. {_words(axes, shares, 'taken for')}",
            prefix=f"{prefix}-confusion",
            top=1.0,
            is_signed=False,
        )
    )
    if geometry is not None and geometry["vectors"] is not None:
        names, cosines = geometry["vectors"]["names"], geometry["vectors"]["cosines"]
        panels.append(
            heat_figure(
                # Opposed is what collapse looks like, so it takes the warning colour.
                [[-value for value in row] for row in cosines],
                [[_cosine(value) for value in row] for row in cosines],
                rows=names,
                columns=names,
                title="Cosines of task vectors",
                legend="",
                label=f"Cosines between task vectors of {', '.join(names)}; the table below holds them.",
                prefix=f"{prefix}-cosines",
                top=1.0,
                is_signed=True,
            )
        )
    return "\n".join(panels)


def _words(axes: Sequence[str], values: Sequence[Sequence[float]], link: str, *, signed: bool = False) -> str:
    def shown(value: float) -> str:
        return signed_per_cent(value) if signed else per_cent(value, 0)

    return "; ".join(
        f"{axis}: " + ", ".join(f"{link} {to} {shown(value)}" for to, value in zip(axes, row, strict=True))
        for axis, row in zip(axes, values, strict=True)
    )
