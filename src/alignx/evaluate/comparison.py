"""Two evaluated runs on the test prompts that both have scored: every figure of both, and paired differences.

A difference is always second run minus first, over the same prompts, so what makes a prompt hard cancels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.judging.figure import FLIP_RATE, Certainty, Scores, figure
from alignx.evaluate.judging.kept import current_verdicts
from alignx.evaluate.judging.scores import measure
from alignx.evaluate.likelihood.judge import CHAT
from alignx.evaluate.measures import ScoredPrompts, calibration_of, loss_table, relative_difference
from alignx.evaluate.methods import BASE, expert_method
from alignx.evaluate.pipeline import TEST, read_metrics
from alignx.evaluate.statistics.calibration import best_expert_labels
from alignx.evaluate.statistics.intervals import bootstrap_interval
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_jsonl

# Figures of the likelihood judge that a prompt has by itself.
MULTIPLE_CHOICE = ("mc1", "mc2")
MEASURES = ("win_rate", "safe_preferred", *MULTIPLE_CHOICE)
Prompt = tuple[str, str]  # axis, prompt hash


@dataclass(frozen=True)
class _Scored:
    """One run's evaluation, prompt by prompt."""

    run: RunDirectory
    config: RunConfig
    metrics: dict[str, Any]
    rows: dict[Prompt, dict[str, Any]]
    judgements: dict[str, dict[Prompt, dict[str, Any]]]


def compare_runs(first: RunDirectory, second: RunDirectory) -> dict[str, Any]:
    """Compare two runs on the test prompts of their common axes that both were scored on.

    Args:
        first: an evaluated run; differences are in per cent of its figures.
        second: another one.

    Returns:
        JSON values: `runs`, `n`, `left_out`, `methods`, `loss` and `loss_interval` (a pair by method), `difference`
        (second minus first, see `relative_difference`), `likelihood`, `calibration`, `judges`, `settings` and
        `environment` (what differs).

    Raises:
        ArtifactError: a run was not evaluated, a file is damaged, or there is no prompt or method in common.
    """
    one, other = _read(first), _read(second)
    common = [key for key in one.rows if key in other.rows]
    if not common:
        raise ArtifactError(
            f"{first.root} and {second.root} have no test prompt in common; compare runs of the same axes and data, "
            "made with the same `seed` or `salt`"
        )
    methods = [name for name in one.metrics["loss"] if _has(one, name, common) and _has(other, name, common)]
    if not methods:
        raise ArtifactError(f"{first.root} and {second.root} scored no method in common; evaluate both again")
    scored = [_columns(part, common, methods) for part in (one, other)]
    draws = {"n_draws": one.config.evaluate.bootstrap_draws, "seed": one.config.seed}
    tables = [loss_table(part, **draws) for part in scored]
    axes = list(dict.fromkeys(axis for axis, _ in common))
    return {
        "runs": [_described(part) for part in (one, other)],
        "axes": axes,
        "n": {axis: sum(key[0] == axis for key in common) for axis in axes} | {"average": len(common)},
        "left_out": [len(part.rows) - len(common) for part in (one, other)],
        "methods": methods,
        "loss": [values for values, _ in tables],
        "loss_interval": [intervals for _, intervals in tables],
        "difference": {
            name: relative_difference(scored[0], scored[1].losses[name], scored[0].losses[name], **draws)
            for name in methods
        },
        "likelihood": _likelihood(one, other, common, methods, draws),
        "prompt_styles": [part.metrics.get("prompt_style", CHAT) for part in (one, other)],
        "calibration": _calibration(one, other, common, draws),
        "judges": _judges(one, other),
        "settings": differing(one.config.model_dump(mode="json"), other.config.model_dump(mode="json")),
        "environment": differing(one.metrics["environment"], other.metrics["environment"]),
    }


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted keys whose values differ -> both values; a key that one side lacks is none there.

    Example:
        >>> differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
        {'a.c': [2, 3]}
    """
    flat = [_flat(first), _flat(second)]
    return {
        key: [part.get(key) for part in flat]
        for key in dict.fromkeys((*flat[0], *flat[1]))
        if flat[0].get(key) != flat[1].get(key)
    }


def _flat(document: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{start}{key}.")
        else:
            found[f"{start}{key}"] = value
    return found


def _read(run: RunDirectory) -> _Scored:
    config, metrics = run.read_config(), read_metrics(run, TEST)
    if "loss" not in metrics:
        raise ArtifactError(f"{run.root}: not scored by likelihood yet; run `alignx evaluate {run.root}`")
    folder = run.evaluation_folder(TEST)
    try:
        rows = {(str(row["axis"]), str(row["prompt_hash"])): row for row in read_jsonl(folder / "prompts.jsonl")}
        judgements: dict[str, dict[Prompt, dict[str, Any]]] = {}
        path = folder / "judgments.jsonl"  # a run may be passed on without it
        for row in read_jsonl(path) if path.is_file() else []:
            judgements.setdefault(row["method"], {})[row["axis"], row["prompt_hash"]] = row
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}: a row is damaged ({error}); run `alignx evaluate {run.root}` again") from error
    return _Scored(run, config, metrics, rows, judgements)


def _has(part: _Scored, method: str, common: Sequence[Prompt]) -> bool:
    return all(method in part.rows[key]["loss"] for key in common)


def _columns(part: _Scored, common: Sequence[Prompt], methods: Sequence[str]) -> ScoredPrompts:
    losses = {name: np.array([part.rows[key]["loss"][name] for key in common]) for name in methods}
    return ScoredPrompts([key[1] for key in common], [key[0] for key in common], losses, {})


def _described(part: _Scored) -> dict[str, Any]:
    return {
        "name": part.run.root.resolve().name,
        "path": str(part.run.root),
        "model": part.config.model,
        "seed": part.config.seed,
        "precision": part.metrics.get("precision", "not recorded"),
    }


def _likelihood(
    one: _Scored, other: _Scored, common: Sequence[Prompt], methods: Sequence[str], draws: Mapping[str, int]
) -> dict[str, Any]:
    """Method -> axis -> measure -> both values and their difference in percentage points, paired by prompt."""
    axes = list(dict.fromkeys(axis for axis, _ in common))
    # Multiple choice that was asked in two styles is two measures.
    same_style = one.metrics.get("prompt_style", CHAT) == other.metrics.get("prompt_style", CHAT)
    measures = [name for name in MEASURES if same_style or name not in MULTIPLE_CHOICE]
    table: dict[str, Any] = {}
    for method in methods:
        for axis in axes:
            of_axis = [key for key in common if key[0] == axis]
            for name in measures:
                pairs = [(_measured(one, method, key, name), _measured(other, method, key, name)) for key in of_axis]
                whole = [(100 * a, 100 * b) for a, b in pairs if a is not None and b is not None]
                if whole and not (method == BASE and name == "win_rate"):
                    table.setdefault(method, {}).setdefault(axis, {})[name] = _paired(whole, draws)
    return table


def _measured(part: _Scored, method: str, key: Prompt, name: str) -> float | None:
    if name == "win_rate":
        losses = part.rows[key]["loss"]
        if BASE not in losses:
            return None
        return 0.5 if losses[method] == losses[BASE] else float(losses[method] < losses[BASE])
    value = part.judgements.get(method, {}).get(key, {}).get(name)
    return None if value is None else float(value)


def _paired(pairs: Sequence[tuple[float, float]], draws: Mapping[str, int]) -> dict[str, Any]:
    """Both means and the mean difference with its 95% interval."""
    differences = [b - a for a, b in pairs]
    first, second = (float(np.mean(column)) for column in zip(*pairs, strict=True))
    interval = bootstrap_interval(differences, **draws)
    return {"values": [first, second], "difference": second - first, "interval": list(interval), "n": len(pairs)}


def _calibration(one: _Scored, other: _Scored, common: Sequence[Prompt], draws: Mapping[str, int]) -> dict[str, Any]:
    """Both read-outs of both runs on the common prompts; accuracy and Brier score with a paired difference."""
    found: dict[str, Any] = {}
    for question in ("axis", "best_expert"):
        read = [_read_out(part, question, common) for part in (one, other)]
        figures = [
            calibration_of(probs, labels, n_bins=part.config.evaluate.calibration_bins, **draws)
            for part, (probs, labels) in zip((one, other), read, strict=True)
        ]
        per_prompt: dict[str, Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]] = {
            "accuracy": lambda probs, labels: (probs.argmax(axis=1) == labels).astype(float),
            "brier": lambda probs, labels: ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(axis=1),
        }
        found[question] = {
            "figures": [{key: part[key] for key in part if key != "reliability"} for part in figures],
            "difference": {
                name: _paired(list(zip(*(score(*part).tolist() for part in read), strict=True)), draws)
                for name, score in per_prompt.items()
            },
        }
    return found


def _read_out(part: _Scored, question: str, common: Sequence[Prompt]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n, m) probabilities and (n,) right classes, in the run's own order of axes."""
    axes, rows = list(part.config.axes), [part.rows[key] for key in common]
    stated = "axis_probs" if question == "axis" else "best_probs"
    probs = np.array([[row[stated][axis] for axis in axes] for row in rows])
    if question == "axis":
        return probs, np.array([axes.index(axis) for axis, _ in common])
    losses = np.array([[row["loss"][expert_method(axis)] for axis in axes] for row in rows])
    return probs, best_expert_labels(losses, probs, part.config.stage2.tie_tolerance)


def _judges(one: _Scored, other: _Scored) -> dict[str, Any]:
    """Judged figures side by side where one judge has judged both; else why not.

    Returns:
        `sections`: name -> `judges`, `baseline` and `table` (measure -> method -> group -> both figures and the paired
        difference, `figure` documents); `not_compared`: name -> reason.
    """
    judged = [part.metrics.get("judges") for part in (one, other)]
    if judged[0] is None or judged[1] is None:
        missing = [part.run.root.name for part, found in zip((one, other), judged, strict=True) if found is None]
        return {"sections": {}, "not_compared": {"judges": f"nothing was judged in {' and '.join(missing)}"}}
    sections: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    measured = [_judged_scores(part) for part in (one, other)]
    for name, section in judged[0]["sections"].items():
        theirs = judged[1]["sections"].get(name)
        if theirs is None:
            reasons[name] = "judged only the first run"
        elif _who(section) != _who(theirs):
            reasons[name] = f"different judges: {_who(section)} and {_who(theirs)}"
        elif section["baseline"] != theirs["baseline"]:
            reasons[name] = f"win rates against different baselines: {section['baseline']} and {theirs['baseline']}"
        else:
            certainty = Certainty(judged[0]["coverage_floor"], one.config.evaluate.bootstrap_draws, one.config.seed)
            table = _judged_table(measured[0].get(name, {}), measured[1].get(name, {}), certainty)
            sections[name] = {"judges": section["judges"], "baseline": section["baseline"], "table": table}
    reasons |= {
        name: "judged only the second run" for name in judged[1]["sections"] if name not in judged[0]["sections"]
    }
    return {"sections": sections, "not_compared": reasons}


def _who(section: Mapping[str, Any]) -> str:
    """Judge, model and the hashes of its templates: what makes it this judge, whatever else is known of it."""
    return ", ".join(
        f"{judge['name']} {judge['model']} ({' '.join(str(one)[:8] for one in judge['templates'].values())})"
        for judge in section["judges"]
    )


def _judged_scores(part: _Scored) -> dict[str, Any]:
    """Section -> measure -> method -> group -> scores, of answers that the run still gives."""
    judged = part.metrics["judges"]
    rows = current_verdicts(part.config, part.run, judged["max_new_tokens"])
    of_section = {name: {judge["name"] for judge in section["judges"]} for name, section in judged["sections"].items()}
    return {name: measure([row for row in rows if row.judge in judges]) for name, judges in of_section.items()}


def _judged_table(first: Mapping[str, Any], second: Mapping[str, Any], certainty: Certainty) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name in first:
        if name == FLIP_RATE or name not in second:
            continue
        for method, by_group in first[name].items():
            for group, ours in by_group.items():
                theirs: Scores = second[name].get(method, {}).get(group, {})
                both = [prompt for prompt in ours if prompt in theirs]
                if not both:
                    continue
                gaps: Scores = {prompt: _gap(ours[prompt], theirs[prompt]) for prompt in both}
                entry = {
                    "first": figure({prompt: ours[prompt] for prompt in both}, certainty),
                    "second": figure({prompt: theirs[prompt] for prompt in both}, certainty),
                    "difference": figure(gaps, certainty),
                }
                table.setdefault(name, {}).setdefault(method, {})[group] = entry
    return table


def _gap(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first
