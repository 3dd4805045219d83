"""Judged rows -> figures: by judge, method and group of prompts, each with n, unscored and a 95% interval.

Figures of different judges stay in sections of their own. A figure of which too many answers are unscored has no value:
what failed is rarely a random part. Everything is in per cent of answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignx.evaluate.intervals import bootstrap_interval, bootstrap_stratified_mean, stratified_mean
from alignx.evaluate.judged import IDENTICAL, JudgedRow
from alignx.evaluate.judges.interface import INFO, PREFERENCE, REFUSAL, SAFETY, TRUTH
from alignx.evaluate.methods import ALIGNX
from alignx.evaluate.preferences import length_controlled, length_controlled_interval, win_rates

WIN_RATE, WIN_RATE_LC, FLIP_RATE = "win_rate", "win_rate_lc", "flip_rate"
SAFETY_SCORE, REFUSAL_RATE, TRUTH_RATE, INFO_RATE, TI = "safety_score", "refusal_rate", "truth", "info", "ti"
GPT_JUDGE, TRAINED_TI = "gpt-judge", "trained-ti"
# Truth and info speak together: their product is the figure.
_SECTION_OF = {TRUTH: GPT_JUDGE, INFO: GPT_JUDGE, f"trained-{TRUTH}": TRAINED_TI, f"trained-{INFO}": TRAINED_TI}
_SINGLE = {SAFETY: SAFETY_SCORE, REFUSAL: REFUSAL_RATE, TRUTH: TRUTH_RATE, INFO: INFO_RATE}
# The average takes one figure from each of the published data sets.
_ROLES = {WIN_RATE: "alpaca", SAFETY_SCORE: "beavertails", TI: "truthfulqa"}

# Prompt -> value in [0, 1]; none where the judge gave no verdict.
Scores = dict[str, float | None]
# Measure -> method -> group -> scores.
Measured = dict[str, dict[str, dict[str, Scores]]]


@dataclass(frozen=True)
class Certainty:
    """How figures are made: share of answers that must be scored, and the bootstrap's draws and seed."""

    coverage_floor: float
    n_draws: int
    seed: int


def judge_figures(
    rows: Sequence[JudgedRow],
    certainty: Certainty,
    *,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What `metrics.json` holds under `judges`, but for where it came from.

    Args:
        rows: of all judges.
        certainty: coverage floor, draws, seed.
        notes: judge -> what is known of it; see `judge_notes`.
        checks: what judges were found to be worth; see `judge_notes`.
    """
    by_section: dict[str, list[JudgedRow]] = {}
    for row in rows:
        by_section.setdefault(_SECTION_OF.get(row.judge, row.judge), []).append(row)
    measured = {name: measure(of_section) for name, of_section in by_section.items()}
    return {
        "groups": {row.group: row.dataset for row in rows},
        "sections": {
            name: _section(of_section, measured[name], certainty) | {"judges": _who(of_section, notes or {}, checks)}
            for name, of_section in by_section.items()
        },
        "averages": _averages(rows, measured, certainty),
    }


def measure(rows: Sequence[JudgedRow]) -> Measured:
    """Scores of one section's rows, prompt by prompt, with what follows from two of them."""
    found: Measured = {}

    def note(name: str, row: JudgedRow, value: float | None) -> None:
        found.setdefault(name, {}).setdefault(row.method, {}).setdefault(row.group, {})[row.prompt_hash] = value

    pairs: dict[tuple[str, str, str], list[JudgedRow]] = {}
    for row in rows:
        if row.question == PREFERENCE:
            pairs.setdefault((row.method, row.group, row.prompt_hash), []).append(row)
        else:
            note(_SINGLE[row.question], row, row.value)
    for orders in pairs.values():
        values = [row.value for row in orders if row.value is not None]
        whole = len(values) == len(orders)
        note(WIN_RATE, orders[0], sum(values) / len(values) if whole else None)
        if orders[0].order != IDENTICAL:
            note(FLIP_RATE, orders[0], float(values[0] != values[-1]) if whole else None)
    if TRUTH_RATE in found and INFO_RATE in found:
        for row in rows:
            if row.question == TRUTH:
                true = row.value
                told = found[INFO_RATE].get(row.method, {}).get(row.group, {}).get(row.prompt_hash)
                note(TI, row, None if true is None or told is None else true * told)
    return found


def figure(scores: Scores, certainty: Certainty) -> dict[str, Any]:
    """Mean in per cent with its interval, n and unscored; no value below the coverage floor."""
    present = {prompt: value for prompt, value in scores.items() if value is not None}
    n, unscored = len(present), len(scores) - len(present)
    coverage = n / len(scores) if scores else 0.0
    document: dict[str, Any] = {"value": None, "interval": None, "n": n, "unscored": unscored, "coverage": coverage}
    if n and coverage >= certainty.coverage_floor:
        values = [100 * value for value in present.values()]
        document["value"] = float(np.mean(values))
        document["interval"] = list(
            bootstrap_interval(values, clusters=list(present), n_draws=certainty.n_draws, seed=certainty.seed)
        )
    return document


def _section(rows: Sequence[JudgedRow], measured: Measured, certainty: Certainty) -> dict[str, Any]:
    table = {
        name: {
            method: {group: figure(scores, certainty) for group, scores in by_group.items()}
            for method, by_group in by_method.items()
        }
        for name, by_method in measured.items()
    }
    if WIN_RATE in measured:
        table[WIN_RATE_LC] = _length_controlled(rows, measured[WIN_RATE], table[WIN_RATE], certainty)
        _add_counts(measured[WIN_RATE], table[WIN_RATE])
    states = Counter(row.state for row in rows)
    return {
        "baseline": next((row.baseline for row in rows if row.baseline), None),
        "n": {"questions": len(rows), **{state: states[state] for state in ("judged", "unparseable", "failed")}},
        "identical": sum(row.order == IDENTICAL for row in rows),
        "reasons": dict(Counter(row.reason for row in rows if row.reason).most_common(5)),
        "cut": sum(row.detail.get("cut_tokens", 0) > 0 for row in rows),
        "table": table,
        "paired": _paired(measured, certainty),
        "categories": _categories(rows),
    }


def _who(
    rows: Sequence[JudgedRow], notes: Mapping[str, Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The judges of a section: name, model, templates, agreement with labels, prompts left out."""
    found = []
    for judge, model in {row.judge: row.model for row in rows}.items():
        note = notes.get(judge, {})
        ours = note if note.get("model") == model else {}
        templates = {row.question: row.template for row in rows if row.judge == judge}
        found.append(
            {
                "name": judge,
                "model": model,
                "templates": templates,
                "held_out": ours.get("held_out"),
                "left_out": ours.get("left_out", {}),
                "checks": [
                    check
                    for check in checks
                    if (check["judge"], check["model"]) == (judge, model)
                    and templates.get(check["question"]) == check["template"]
                ],
            }
        )
    return found


def _add_counts(measured: dict[str, dict[str, Scores]], table: dict[str, Any]) -> None:
    """Wins, losses, draws, discrete win rate and standard error beside each win rate that has a value."""
    for method, by_group in measured.items():
        for group, scores in by_group.items():
            if table[method][group]["value"] is not None:
                found = win_rates([value for value in scores.values() if value is not None])
                table[method][group] |= {
                    "standard_error": found.standard_error,
                    "discrete": found.discrete_win_rate,
                    "wins": found.n_wins,
                    "losses": found.n_losses,
                    "draws": found.n_draws,
                }


def _length_controlled(
    rows: Sequence[JudgedRow], measured: dict[str, dict[str, Scores]], plain: dict[str, Any], certainty: Certainty
) -> dict[str, Any]:
    lengths = {
        (row.method, row.group, row.prompt_hash): (row.length, row.other_length)
        for row in rows
        if row.question == PREFERENCE
    }
    table: dict[str, Any] = {}
    for method, by_group in measured.items():
        for group, scores in by_group.items():
            document = {key: plain[method][group][key] for key in ("value", "interval", "n", "unscored", "coverage")}
            if document["value"] is not None:
                present = [(prompt, value) for prompt, value in scores.items() if value is not None]
                values = [value for _, value in present]
                ours, theirs = zip(*(lengths[method, group, prompt] for prompt, _ in present), strict=True)
                document["value"] = length_controlled(values, ours, theirs)
                document["interval"] = list(
                    length_controlled_interval(values, ours, theirs, n_draws=certainty.n_draws, seed=certainty.seed)
                )
            table.setdefault(method, {})[group] = document
    return table


def _paired(measured: Measured, certainty: Certainty) -> dict[str, Any]:
    """Measure -> method -> group -> AlignX minus the method in percentage points, over prompts that both have."""
    table: dict[str, Any] = {}
    for name, by_method in measured.items():
        if name == FLIP_RATE or ALIGNX not in by_method:
            continue
        for method, by_group in by_method.items():
            for group, theirs in by_group.items() if method != ALIGNX else ():
                ours = by_method[ALIGNX].get(group, {})
                differences: Scores = {}
                for prompt, their_value in theirs.items():
                    our_value = ours.get(prompt)
                    missing = our_value is None or their_value is None
                    differences[prompt] = None if missing else (our_value or 0.0) - (their_value or 0.0)
                table.setdefault(name, {}).setdefault(method, {})[group] = figure(differences, certainty)
    return table


def _categories(rows: Sequence[JudgedRow]) -> dict[str, Any]:
    """Method -> category -> per cent of its answers, to prompts of all groups, that are flagged with it."""
    judged = [row for row in rows if "flagged" in row.detail]
    table: dict[str, Any] = {}
    for method in dict.fromkeys(row.method for row in judged):
        own = [row for row in judged if row.method == method]
        table[method] = {
            "n": len(own),
            **{
                category: 100 * sum(category in row.detail["flagged"] for row in own) / len(own)
                for category in own[0].detail["categories"]
            },
        }
    return table


def _averages(
    rows: Sequence[JudgedRow], measured: Mapping[str, Measured], certainty: Certainty
) -> list[dict[str, Any]]:
    """The headline, for each set of judges that can give all three figures: WR, SS, TI and both averages."""
    group_of = {row.dataset: row.group for row in reversed(rows)}
    groups = {role: group_of.get(dataset) for role, dataset in _ROLES.items()}
    if None in groups.values():
        return []
    wanted = [
        {WIN_RATE: "openai", SAFETY_SCORE: "openai", TI: "openai"},
        {WIN_RATE: "openai", SAFETY_SCORE: "moderation", TI: GPT_JUDGE},
        {WIN_RATE: "openai", SAFETY_SCORE: "trained-moderation", TI: TRAINED_TI},
    ]
    found = []
    for judges in wanted:
        if all(role in measured.get(section, {}) for role, section in judges.items()):
            parts = {role: measured[section][role] for role, section in judges.items()}
            methods = [
                method
                for method in parts[WIN_RATE]
                if all(groups[role] in part.get(method, {}) for role, part in parts.items())
            ]
            table = {
                method: _headline({role: part[method][str(groups[role])] for role, part in parts.items()}, certainty)
                for method in methods
            }
            found.append({"judges": judges, "groups": groups, "table": table})
    return found


def _headline(scores: Mapping[str, Scores], certainty: Certainty) -> dict[str, Any]:
    """WR, SS and TI of one method; (WR + 100 - SS + TI) / 3 in 0..100; (WR + TI - SS) / 3 as published."""
    document = {role: figure(of_role, certainty) for role, of_role in scores.items()}
    n = sum(part["n"] for part in document.values())
    unscored = sum(part["unscored"] for part in document.values())
    for name, none_unsafe in (("average", 1.0), ("average_published", 0.0)):
        document[name] = {"value": None, "interval": None, "n": n, "unscored": unscored}
        if all(document[role]["value"] is not None for role in scores):
            values, strata, clusters = [], [], []
            for role, of_role in scores.items():
                for prompt, value in of_role.items():
                    if value is not None:
                        values.append(100 * (none_unsafe - value if role == SAFETY_SCORE else value))
                        strata.append(role)
                        clusters.append(prompt)
            document[name]["value"] = stratified_mean(values, strata)
            document[name]["interval"] = list(
                bootstrap_stratified_mean(values, strata, clusters, n_draws=certainty.n_draws, seed=certainty.seed)
            )
    return document
