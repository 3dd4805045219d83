"""Off its own data: what `alignx probe` measured, as tables for the terminal, markdown and HTML alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignx.evaluate.methods import ALIGNX, BASE
from alignx.evaluate.probe.foreign import AXIS_DOUBT, BEST_DOUBT, DETECTOR, LENGTH
from alignx.evaluate.probe.sets import DISGUISE, FOREIGN, SEVERAL_AXES
from alignx.report.section import Section, SideBySide
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import listed, method_label, number, number_range, per_cent, signed_per_cent, signed_range

_SCORES = {
    DETECTOR: "detector",
    AXIS_DOUBT: "1 - max axis_probs",
    BEST_DOUBT: "1 - max best_probs",
    LENGTH: "length alone",
}
_WEIGHTS = {
    "pi": "mixture weights",
    "axis_probs": "axis_probs",
    "plain": "plain router",
    "plain_with_temperature": "plain router + temperature",
}
_MEASURES = {
    "needed_weight": "on needed axes",
    "smallest_needed": "on the least of them",
    "all_served": "all at least 0.2",
}


def probe_section(metrics: Mapping[str, Any]) -> Section:
    """What a report says and shows of a probe.

    Args:
        metrics: what `eval/probe/metrics.json` holds.
    """
    tables, left_out = probe_tables(metrics)
    answered = metrics.get(SEVERAL_AXES, {}).get("answered", [])
    return Section("probe", "Off its own data", left_out, [*tables, *map(_side_by_side, answered)])


def _side_by_side(row: Mapping[str, Any]) -> SideBySide:
    said = [(method_label(method), answer) for method, answer in row["answers"].items()]
    return SideBySide(f"Needs {listed(row['needs'])} ({row['topic']})", (), [("Prompt", row["prompt"]), *said])


def probe_tables(metrics: Mapping[str, Any]) -> tuple[list[Table], list[str]]:
    """Tables of the probes that were made, and a sentence for each that was left out."""
    tables: list[Table] = []
    left_out = []
    for probe, make in ((FOREIGN, _foreign), (DISGUISE, _disguise), (SEVERAL_AXES, _several_axes)):
        figures = metrics.get(probe)
        if figures is None:
            continue
        if "left_out" in figures:
            left_out.append(f"{probe}: left out: {figures['left_out']}")
        else:
            tables += make(figures)
    return tables, left_out


def probe_by_seed_table(probes: Sequence[Mapping[str, Any]]) -> Table:
    """The headline figures of several seeds' probes side by side, each with its own interval.

    Args:
        probes: what their `eval/probe/metrics.json` hold; figures of a probe that was not made are shown as none.
    """
    rows = tuple(
        Row(name, name, tuple(read(found[part]) if _was_made(found, part) else Cell("none") for found in probes))
        for name, (part, read) in _HEADLINES.items()
    )
    return Table(
        "Seed by seed",
        "figure",
        tuple(Column(f"seed {found['seed']}") for found in probes),
        rows,
        "The probe's prompts are the same for every seed; test prompts, experts and routers are the seed's own. With "
        "each value its 95% bootstrap interval over prompts; that of the least lead does not know it is the least.",
    )


def _was_made(found: Mapping[str, Any], probe: str) -> bool:
    return probe in found and "left_out" not in found[probe]


def _least_lead(foreign: Mapping[str, Any]) -> Cell:
    if not foreign["averaged"]:
        return Cell("none")
    leads = foreign["difference"][LENGTH]
    kind = min(foreign["averaged"], key=lambda one: leads[one]["value"])
    cell = _plain(leads[kind])
    return Cell(f"{cell.text} ({kind})", cell.interval)


def _served(weights: str) -> Callable[[Mapping[str, Any]], Cell]:
    return lambda several: _plain(several["figures"][weights]["all_served"])


# Figure -> the probe it is of, and how it is read from that.
_HEADLINES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Cell]]] = {
    "detector's AUROC, average of the foreign kinds": (
        FOREIGN,
        lambda foreign: _plain(foreign["auroc"][DETECTOR]["average"]),
    ),
    "its least lead over length alone": (FOREIGN, _least_lead),
    "false alarms on own test prompts": (FOREIGN, lambda foreign: Cell(per_cent(foreign["false_alarms"]["all"]))),
    "alignment tax of AlignX, average": (
        FOREIGN,
        lambda foreign: _relative(foreign["tax"]["relative"][ALIGNX]["average"]),
    ),
    "floor holds on every disguised request": (
        DISGUISE,
        lambda disguise: Cell("yes" if disguise["floor_holds"] else "NO"),
    ),
    "share of prompts with all needed axes at 0.2: AlignX": (SEVERAL_AXES, _served("pi")),
    "the same: plain router": (SEVERAL_AXES, _served("plain")),
}


def _foreign(figures: Mapping[str, Any]) -> list[Table]:
    return [_separation(figures), _flagged(figures), _tax(figures["tax"])]


def _separation(figures: Mapping[str, Any]) -> Table:
    low, high = figures["length_range"]
    kinds = list(figures["auroc"][DETECTOR])
    columns = tuple(Column(kind, figures["n"].get(kind, {}).get("matched")) for kind in kinds)
    rows = [
        Row(score, _SCORES[score], tuple(_plain(by_kind[kind]) for kind in kinds), is_ours=score == DETECTOR)
        for score, by_kind in figures["auroc"].items()
    ]
    rows += [
        Row(f"minus-{score}", f"detector - {_SCORES[score]}", tuple(_plain(by_kind[kind]) for kind in kinds))
        for score, by_kind in figures["difference"].items()
    ]
    averaged = ", ".join(figures["averaged"]) or "nothing: no foreign prompt is as long as the axes' own"
    return Table(
        "Foreign prompts against the axes' test prompts: AUROC at matched lengths",
        "score",
        columns,
        tuple(rows),
        f"Prompts of {low:g} to {high:g} tokens on both sides, {figures['n_test']['matched']} test prompts. Below each "
        f"value its 95% bootstrap interval; differences are paired. Average over {averaged}.",
    )


def _flagged(figures: Mapping[str, Any]) -> Table:
    rows = [
        Row(kind, kind, (Cell("foreign"), Cell(str(figures["n"][kind]["all"])), Cell(per_cent(share))))
        for kind, share in figures["flagged"].items()
    ]
    rows += [
        Row(axis, axis, (Cell("own test prompts: false alarms"), Cell(""), Cell(per_cent(share))))
        for axis, share in figures["false_alarms"].items()
    ]
    columns = (Column("prompts", is_text=True), Column("n"), Column("flagged"))
    return Table("Flagged as foreign: g below one half", "kind or axis", columns, tuple(rows), "Prompts of any length.")


def _tax(tax: Mapping[str, Any]) -> Table:
    kinds = list(tax["loss"][BASE])
    rows = [Row(BASE, "base (nats a token)", tuple(Cell(number(tax["loss"][BASE][kind]["value"])) for kind in kinds))]
    for method, by_kind in tax["relative"].items():
        cells = tuple(_relative(by_kind[kind]) for kind in kinds)
        rows.append(Row(method, method_label(method), cells, is_ours=method == ALIGNX))
    return Table(
        "Alignment tax: loss on foreign answers, relative to the base",
        "method",
        tuple(Column(kind) for kind in kinds),
        tuple(rows),
        "Above zero: worse than the base. Intervals are paired by prompt.",
    )


def _disguise(figures: Mapping[str, Any]) -> list[Table]:
    axis, floor = figures["axis"], figures["floor"]
    names = {
        "min": "least",
        "p5": "5%",
        "median": "median",
        "mean": "mean",
        "min_with_floor": f"least, floor {floor:g}",
    }
    rows = [
        Row(
            kind,
            kind,
            (Cell(str(row["n"])), *(Cell(number(row[name])) for name in names), Cell(per_cent(row["flagged"]))),
        )
        for kind, row in figures["by_kind"].items()
    ]
    held = "The floor held on every prompt." if figures["floor_holds"] else "THE FLOOR DID NOT HOLD."
    return [
        Table(
            f"Harmful requests in disguise: weight of the expert `{axis}`",
            "disguise",
            (Column("n"), *(Column(title) for title in names.values()), Column("flagged")),
            tuple(rows),
            f"No floor but in the column that names one. {held}",
        )
    ]


def _several_axes(figures: Mapping[str, Any]) -> list[Table]:
    measures = [measure for measure in _MEASURES if measure in figures["figures"]["pi"]]
    rows = [
        Row(name, _WEIGHTS[name], tuple(_plain(values[measure]) for measure in measures), is_ours=name == "pi")
        for name, values in figures["figures"].items()
    ]
    rows += [
        Row(f"minus-{name}", f"mixture weights - {_WEIGHTS[name]}", tuple(_plain(values[one]) for one in measures))
        for name, values in figures["difference"].items()
    ]
    ns = {"needed_weight": figures["n_not_all_axes"]}
    return [
        Table(
            "Prompts that need several axes: weight on the axes they need",
            "weights",
            tuple(Column(_MEASURES[measure], ns.get(measure, figures["n"])) for measure in measures),
            tuple(rows),
            f"{figures['n']} of {figures['n_asked']} prompts need only axes that this run has; the first column leaves "
            "out those that need all of them.",
        )
    ]


def _plain(figure: Mapping[str, float]) -> Cell:
    return Cell(number(figure["value"]), number_range(figure["low"], figure["high"]))


def _relative(figure: Mapping[str, float]) -> Cell:
    return Cell(signed_per_cent(figure["value"]), signed_range((figure["low"], figure["high"])))
