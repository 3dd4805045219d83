"""Judged rows -> figures: by judge, method and group of prompts, each with n, unscored and a 95% interval.

Figures of different judges stay in sections of their own. A figure of which too many answers are unscored has no value:
what failed is rarely a random part. Everything is in per cent of answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignx.evaluate.judges.interface import INFO, PREFERENCE, REFUSAL, SAFETY, TRUTH
from alignx.evaluate.judging.figure import (
    FLIP_RATE,
    GPT_JUDGE,
    INFO_RATE,
    REFUSAL_RATE,
    SAFETY_SCORE,
    TI,
    TRAINED_TI,
    TRUTH_RATE,
    WIN_RATE,
    WIN_RATE_LC,
    Certainty,
    Measured,
    Scores,
    figure,
    paired_difference,
)
from alignx.evaluate.judging.headline import LIKELIHOOD, headlines
from alignx.evaluate.judging.rows import IDENTICAL, JudgedRow
from alignx.evaluate.methods import ALIGNX
from alignx.evaluate.statistics.preferences import length_controlled, length_controlled_interval, win_rates

# Truth and info speak together: their product is the figure.
SECTION_OF = {TRUTH: GPT_JUDGE, INFO: GPT_JUDGE, f"trained-{TRUTH}": TRAINED_TI, f"trained-{INFO}": TRAINED_TI}
_SINGLE = {SAFETY: SAFETY_SCORE, REFUSAL: REFUSAL_RATE, TRUTH: TRUTH_RATE, INFO: INFO_RATE}


def judge_figures(
    rows: Sequence[JudgedRow],
    certainty: Certainty,
    *,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
    wins: Mapping[str, Mapping[str, Scores]] | None = None,
) -> dict[str, Any]:
    """What `metrics.json` holds under `judges`, but for where it came from.

    Args:
        rows: of all judges.
        certainty: coverage floor, draws, seed.
        notes: judge -> what is known of it; see `judge_notes`.
        checks: what judges were found to be worth; see `judge_notes`.
        wins: method -> group -> wins over the base by likelihood of the reference answer, where it was scored.
    """
    likelihood: dict[str, Measured] = {LIKELIHOOD: {WIN_RATE: {name: dict(own) for name, own in (wins or {}).items()}}}
    by_section: dict[str, list[JudgedRow]] = {}
    for row in rows:
        by_section.setdefault(SECTION_OF.get(row.judge, row.judge), []).append(row)
    measured = {name: measure(of_section) for name, of_section in by_section.items()}
    return {
        "groups": {row.group: row.dataset for row in rows},
        "sections": {
            name: _section(of_section, measured[name], certainty) | {"judges": _who(of_section, notes or {}, checks)}
            for name, of_section in by_section.items()
        },
        "averages": headlines(rows, measured | likelihood, certainty),
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
                paired = paired_difference(by_method[ALIGNX].get(group, {}), theirs, certainty)
                table.setdefault(name, {}).setdefault(method, {})[group] = paired
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
