"""The sweep of the dial in words and tables: what each axis gains and costs, and what lies beyond the dial's reach."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.config import MERGE_NAMES
from alignx.evaluate.tradeoff.settings import MAX_WEIGHT
from alignx.report.tables import Cell, Column, Row, Table
from alignx.report.wording import JOINT, listed, method_label, number, number_range, ordered_methods, per_cent

MEASURES = {
    "safe_margin": "safe margin (nats a token)",
    "mc2": "MC2 (share)",
    "minus_loss": "minus loss (nats a token)",
}
_GOOD = 0.9


def tradeoff_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """The sweep's tables, in order, but for the settings of the front one by one.

    Args:
        metrics: what `eval/tradeoff/metrics.json` or `pooled.json` holds.
    """
    return [make(metrics) for make in (dial_table, cost_table, place_table, rival_table)]


def setting_label(name: str) -> str:
    """A setting's name as readers see it.

    Example:
        >>> setting_label("dial-harmless-10"), setting_label("grid-2-1-0"), setting_label("static-2-1-0")
        ('harmless at 10%', 'weights 2:1:0', 'fixed 2:1:0')
    """
    kind, _, rest = name.partition("-")
    if name == "rest":
        return "dial at rest"
    if kind == "dial":
        axis, _, share = rest.rpartition("-")
        return f"{axis} at {share}%"
    if kind in {"grid", "static"}:
        return f"{'weights' if kind == 'grid' else 'fixed'} {rest.replace('-', ':')}"
    return f"preset {rest}" if kind == "preset" else method_label(name)


def weights_label(metrics: Mapping[str, Any], axis: str) -> str:
    """From which weight to which an axis's dial was turned."""
    names = metrics["dials"][axis]["settings"]
    return " to ".join(f"{metrics['settings'][names[at]]['weights'][axis]:.3g}" for at in (0, -1))


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """What to take away, computed from the figures."""
    counts = ", ".join(f"{axis} {n}" for axis, n in metrics["n"].items())
    found = [
        "Every axis's weight was turned while the others stayed at 1: nine settings, at which its expert gets 10%, 20% "
        "and so on to 90% of the mixture on the axis's calibration prompts. Scored on test prompts "
        f"({counts}{_of_seeds(metrics)}), likelihood judge. An axis's gain is read on its own prompts, its cost on the "
        "others'."
    ]
    for axis, dial in metrics["dials"].items():
        if metrics["settings"][dial["settings"][-1]]["weights"][axis] >= MAX_WEIGHT / 2:
            found.append(f"No weight takes the share of {axis}'s expert beyond {per_cent(dial['shares'][-1], 0)}.")
    for axis, n in metrics.get("measurable", {}).items():
        if metrics["measure"][axis] == "minus_loss" and n < metrics["n"][axis]:
            found.append(
                f"{axis} is read by its loss: only {n} of its {metrics['n'][axis]} prompts can give the figure that it "
                "is judged by, too few to say anything."
            )
    for axis, dial in metrics["dials"].items():
        found.append(_dial_sentence(axis, dial, MEASURES[metrics["measure"][axis]]))
    found += _rival_sentences(metrics)
    return found


def dial_table(metrics: Mapping[str, Any]) -> Table:
    """Each axis's own measure along its dial."""
    rows, by_seed = [], len(metrics.get("seeds", ())) > 1
    for axis, dial in metrics["dials"].items():
        rest = metrics["settings"]["rest"]["mean_pi"][axis][axis]
        cells = (
            Cell(MEASURES[metrics["measure"][axis]]),
            Cell(weights_label(metrics, axis)),
            Cell(" to ".join(per_cent(share, 0) for share in (dial["shares"][0], dial["shares"][-1]))),
            Cell(number(dial["lowest"])),
            Cell(number(dial["rest"]), f"at {per_cent(rest, 0)}"),
            Cell(number(dial["highest"])),
            Cell(_signed(dial["gain"]), _between(dial["gain_interval"])),
            Cell(_maybe(dial["spearman"], 2), _between(dial["spearman_interval"], 2)),
            *([Cell(", ".join(_maybe(one, 2) for one in dial["spearman_by_seed"]))] if by_seed else []),
            Cell(_maybe(dial["spearman_of_loss"], 2)),
        )
        rows.append(Row(axis, axis, cells))
    correlations = ("Spearman", *(["Spearman, seed by seed"] if by_seed else []), "Spearman, loss")
    titles = ("weight", "share of its expert", "lowest setting", "at rest", "highest", "change", *correlations)
    return Table(
        "Each axis's own measure along its dial, on its own prompts (higher is better)",
        "axis",
        (Column("measure", is_text=True), *(Column(title) for title in titles)),
        tuple(rows),
        "Spearman: rank correlation of the share of the axis's expert with its measure over the settings of its dial; "
        "1 is a measure that only rises as the dial is turned up. With each: its 95% interval over prompts. Spearman, "
        "loss: the same for minus the loss on the reference answers."
        + (" Weights are geometric means over the seeds, each of which has its own." if by_seed else ""),
    )


def cost_table(metrics: Mapping[str, Any]) -> Table:
    """What turning one axis up takes from the others."""
    axes = metrics["axes"]
    rows = tuple(
        Row(
            axis,
            f"{axis} turned up",
            tuple(
                Cell("own") if other == axis else Cell(_signed_share(-metrics["dials"][axis]["cost"][other]))
                for other in axes
            ),
        )
        for axis in axes
    )
    return Table(
        "What turning one axis from its lowest setting to its highest does to the others",
        "dial",
        tuple(Column(f"on prompts of {axis}") for axis in axes),
        rows,
        "In shares of the axis's range between the worst and the best of all swept and fixed mixtures; below zero is "
        "a cost.",
    )


def place_table(metrics: Mapping[str, Any]) -> Table:
    """Rest, presets and what the dial is compared with, on the same axes."""
    presets = [name for name, one in metrics["settings"].items() if one["kind"] == "preset"]
    methods = _ordered(metrics, (name for name, one in metrics["settings"].items() if one["kind"] == "method"))
    names = dict.fromkeys(["rest", *presets, *methods, best_fixed(metrics)])
    return _places(
        metrics,
        "Where everything lies",
        list(names),
        "Each axis's own measure on its own prompts, and where it lies in the range between the worst (0%) and the "
        "best (100%) of all swept and fixed mixtures. Fixed: the same mixture for every prompt; the one that is best "
        "on average is shown.",
    )


def front_table(metrics: Mapping[str, Any]) -> Table:
    """The settings of the dial that no other one beats on all axes."""
    settings = metrics["settings"]
    front = [name for name, one in settings.items() if one["front"]]
    # Settings that come to the same mixture for every prompt are shown once.
    first = {tuple(_normalised(metrics, name)): name for name in reversed(front)}
    names = [name for name in front if first[tuple(_normalised(metrics, name))] == name]
    n_swept = sum(one["front"] is not None for one in settings.values())
    note = f"{len(front)} of the {n_swept} swept settings: none of the others is as good on all axes and better on one."
    return _places(metrics, "The front: settings of the dial that give nothing away", names, note)


def rival_table(metrics: Mapping[str, Any]) -> Table:
    """Whether some setting of the dial is at least as good on all axes as each mixture, merge, expert or model."""
    rows = []
    for name in _ordered(metrics, metrics["rivals"]):
        found = metrics["rivals"][name]
        verdict = rival_verdict(found)
        cells = (
            Cell(setting_label(found["matched_by"])),
            Cell(_signed_share(found["gap"]), _between_shares(found["interval"])),
            Cell("none" if found["held_out"] is None else _signed_share(found["held_out"])),
            Cell(verdict, tone={"within reach": "better", "beyond reach": "worse"}.get(verdict, "")),
        )
        rows.append(Row(name, setting_label(name), cells))
    return Table(
        "Is anything beyond the dial's reach?",
        "rival",
        (Column("closest setting", is_text=True), Column("least lead"), Column("held out"), Column("", is_text=True)),
        tuple(rows),
        "Least lead: by how much the closest setting of the dial is ahead on the axis where it is least ahead, in "
        "shares of the axis's range, with its 95% interval; 0 or more means at least as good on every axis. The "
        "closest is chosen anew in every draw, and choosing the best of many flatters the dial a little; held out does "
        "not: chosen on one half of the prompts, measured on the other.",
    )


def rival_verdict(found: Mapping[str, Any]) -> str:
    """What a least lead and its interval allow to say."""
    if found["gap"] >= 0:
        return "within reach"
    interval = found["interval"]
    return "beyond reach" if interval is not None and interval[1] < 0 else "not distinguishable"


def best_fixed(metrics: Mapping[str, Any]) -> str:
    """The fixed mixture that is best on the average of the normalised axes."""
    fixed = [name for name, one in metrics["settings"].items() if one["kind"] == "static"]
    return str(max(fixed, key=lambda name: sum(_normalised(metrics, name))))


def _normalised(metrics: Mapping[str, Any], name: str) -> list[float]:
    return [metrics["settings"][name]["axes"][axis]["normalised"] for axis in metrics["axes"]]


def _of_seeds(metrics: Mapping[str, Any]) -> str:
    seeds = metrics.get("seeds", ())
    if len(seeds) < 2:
        return ""
    distinct = sum(metrics["n_prompts"].values())
    return f"; seeds {listed([str(seed) for seed in seeds])} together, {distinct} distinct prompts in all"


def _dial_sentence(axis: str, dial: Mapping[str, Any], measure: str) -> str:
    name = measure.partition(" (")[0]
    text = f"{axis}: {name} {number(dial['lowest'])} to {number(dial['highest'])}"
    if dial["spearman"] is None:
        return f"{text}; it does not move."
    word = "rises with its dial" if dial["spearman"] >= _GOOD else "does not simply rise with its dial"
    return f"{text}; it {word} (Spearman {number(dial['spearman'], 2)})."


def _rival_sentences(metrics: Mapping[str, Any]) -> list[str]:
    fixed = [name for name, one in metrics["settings"].items() if one["kind"] == "static"]
    merges = [name for name in metrics["rivals"] if name in MERGE_NAMES]
    verdicts = {name: rival_verdict(metrics["rivals"][name]) for name in dict.fromkeys([*fixed, *merges])}
    within = sum(verdict == "within reach" for verdict in verdicts.values())
    found = [
        f"Of {len(verdicts)} mixtures that are the same for every prompt, fixed ones and merges, {within} have a "
        "setting of the dial that is at least as good on every axis."
    ]
    beyond = [setting_label(name) for name, verdict in verdicts.items() if verdict == "beyond reach"]
    if beyond:
        found.append(f"Beyond the dial's reach: {listed(beyond)}.")
    best = best_fixed(metrics)
    rival = metrics["rivals"][best]
    found.append(
        f"The best of them on average is {setting_label(best)}; against it the dial's least lead is "
        f"{_signed_share(rival['gap'])} of the range ({rival_verdict(rival)})."
    )
    if metrics["volume"] is not None:
        found.append(_volume_sentence(metrics["volume"]))
    if JOINT in metrics["rivals"]:
        rival = metrics["rivals"][JOINT]
        found.append(f"Against the joint LoRA it is {_signed_share(rival['gap'])} ({rival_verdict(rival)}).")
    return found


def _volume_sentence(volume: Mapping[str, Any]) -> str:
    interval = "" if volume["interval"] is None else f" (95% interval {_between_shares(volume['interval'])})"
    return (
        f"Of the box between worst and best on every axis the dial's settings dominate {per_cent(volume['swept'], 0)} "
        f"and fixed mixtures {per_cent(volume['fixed'], 0)}, a difference of "
        f"{_signed_share(volume['difference'])}{interval}."
    )


def _ordered(metrics: Mapping[str, Any], names: Any) -> list[str]:
    """Methods in the order of the tables, then fixed mixtures."""
    given = list(names)
    fixed = [name for name in given if metrics["settings"][name]["kind"] == "static"]
    return [*ordered_methods((name for name in given if name not in fixed), metrics["axes"]), *fixed]


def _places(metrics: Mapping[str, Any], caption: str, names: Sequence[str], note: str) -> Table:
    rows = []
    for name in names:
        places = [metrics["settings"][name]["axes"][axis] for axis in metrics["axes"]]
        cells = [Cell(number(one["measure"]), per_cent(one["normalised"], 0)) for one in places]
        rows.append(Row(name, setting_label(name), tuple(cells), is_ours=name == "rest"))
    columns = tuple(Column(axis, metrics["n"][axis]) for axis in metrics["axes"])
    return Table(caption, "setting", columns, tuple(rows), note)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _signed_share(share: float) -> str:
    text = f"{100 * share:+.1f}%"
    return "0.0%" if float(text[:-1]) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _maybe(value: float | None, digits: int) -> str:
    return "none" if value is None else number(value, digits)


def _between(interval: Sequence[float] | None, digits: int = 3) -> str:
    return "" if interval is None else number_range(*interval, digits=digits)


def _between_shares(interval: Sequence[float] | None) -> str:
    return "" if interval is None else " to ".join(map(_signed_share, interval))
