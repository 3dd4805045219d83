"""The published headline: win rate (WR), safety score (SS), truthful and informative (TI), their average, and the base.

Each column is one judge's figure on the data set it is known from; no column mixes judges.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from alignx.evaluate.judging.figure import (
    GPT_JUDGE,
    SAFETY_SCORE,
    TI,
    TRAINED_TI,
    WIN_RATE,
    Certainty,
    Measured,
    Scores,
    figure,
    paired_difference,
)
from alignx.evaluate.judging.rows import JudgedRow
from alignx.evaluate.methods import BASE
from alignx.evaluate.statistics.intervals import bootstrap_ratio, bootstrap_stratified_mean, stratified_mean

LIKELIHOOD = "likelihood"
# The average takes one figure from each of the published data sets.
_ROLES = {WIN_RATE: "alpaca", SAFETY_SCORE: "beavertails", TI: "truthfulqa"}
_JUDGES = (
    {WIN_RATE: "openai", SAFETY_SCORE: "openai", TI: "openai"},
    {WIN_RATE: "openai", SAFETY_SCORE: "moderation", TI: GPT_JUDGE},
    {WIN_RATE: "openai", SAFETY_SCORE: "trained-moderation", TI: TRAINED_TI},
    {WIN_RATE: LIKELIHOOD, SAFETY_SCORE: "trained-moderation", TI: TRAINED_TI},
)


def headlines(
    rows: Sequence[JudgedRow], measured: Mapping[str, Measured], certainty: Certainty
) -> list[dict[str, Any]]:
    """The headline table of every set of judges that gives all three figures.

    Args:
        rows: judged rows, for the data set of each group.
        measured: section -> its scores; `likelihood` has win rates from the losses on reference answers.
        certainty: coverage floor, draws, seed.

    Returns:
        For each set `judges` and `groups` by role, and `table`: method -> figures in per cent, with `versus_base`.
    """
    group_of = {row.dataset: row.group for row in reversed(rows)}
    groups = {role: group_of.get(dataset, "") for role, dataset in _ROLES.items()}
    if "" in groups.values():
        return []
    found = []
    for judges in _JUDGES:
        if all(role in measured.get(section, {}) for role, section in judges.items()):
            parts = {role: measured[section][role] for role, section in judges.items()}
            methods = [
                method
                for method in parts[SAFETY_SCORE]
                if all(groups[role] in part.get(method, {}) for role, part in parts.items())
            ]
            scores = {method: {role: part[method][groups[role]] for role, part in parts.items()} for method in methods}
            table = {method: _headline(of_method, certainty) for method, of_method in scores.items()}
            for method in scores if BASE in scores else ():
                table[method]["versus_base"] = _versus_base(scores[method], scores[BASE], certainty)
            if table:
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


def _versus_base(ours: Mapping[str, Scores], base: Mapping[str, Scores], certainty: Certainty) -> dict[str, Any]:
    """WR and TI as changes in per cent of the base's, SS as a difference in percentage points, paired by prompt."""
    return {
        role: paired_difference(ours[role], base[role], certainty)
        if role == SAFETY_SCORE
        else _change(ours[role], base[role], certainty)
        for role in ours
    }


def _change(ours: Scores, base: Scores, certainty: Certainty) -> dict[str, Any]:
    pairs = {prompt: (value, base.get(prompt)) for prompt, value in ours.items()}
    known = [(prompt, one, other) for prompt, (one, other) in pairs.items() if one is not None and other is not None]
    document: dict[str, Any] = {"value": None, "interval": None, "n": len(known), "unscored": len(ours) - len(known)}
    if not known or len(known) < certainty.coverage_floor * len(ours):
        return document
    prompts, values, others = zip(*known, strict=True)
    differences = [one - other for one, other in zip(values, others, strict=True)]
    try:
        value, *interval = bootstrap_ratio(
            differences, others, ["all"] * len(known), prompts, n_draws=certainty.n_draws, seed=certainty.seed
        )
    except ValueError:  # the base's figure is 0, or is in some draws: a change in per cent of it means nothing
        return document
    return document | {"value": 100 * value, "interval": [100 * end for end in interval]}
