"""What a reader may take away and what not, computed from the figures; no claim is written down beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignx.evaluate.measures import AVERAGE
from alignx.report.wording import (
    BASE,
    JOINT,
    UNIFORM,
    counts,
    listed,
    method_label,
    number,
    per_cent,
    signed_per_cent,
    signed_range,
    verdict_on,
)

READ_OUTS = {
    "axis": ("axis_probs", "which axis a prompt comes from"),
    "best_expert": ("best_probs", "which expert serves a prompt best"),
}
SMALL_N = 100
SMALL_GAP = 0.01


@dataclass(frozen=True)
class KeyFigure:
    """One figure of the page's head: its name, its value, the interval or yardstick, and what it allows to say."""

    name: str
    value: str
    detail: str
    verdict: str
    tone: str = ""


def takeaways(metrics: Mapping[str, Any]) -> list[str]:
    """The summary, sentence by sentence: regret, AlignX against joint, uniform and base, then both read-outs."""
    sentences = [
        f"Measured on {metrics['n'][AVERAGE]} test prompts ({counts(metrics)}), by how well each method predicts the "
        "reference answers (loss, lower is better)."
    ]
    sentences.append(_difference(metrics["regret"], "the expert of the axis each prompt comes from"))
    for method in (JOINT, UNIFORM, BASE):
        found = metrics["alignx_versus"].get(method)
        label = "one " if method == JOINT else "the "
        if found is None:
            sentences.append(f"There is no comparison with the {method_label(method)}: this run did not score it.")
        else:
            sentences.append(_difference(found, label + method_label(method)))
    sentences += [_calibration(metrics, question) for question in READ_OUTS if question in metrics["calibration"]]
    return sentences


def key_figures(metrics: Mapping[str, Any]) -> list[KeyFigure]:
    """What stands at the head of the page."""
    compared = {"regret against own experts": metrics["regret"]}
    for method in (JOINT, UNIFORM, BASE):
        if method in metrics["alignx_versus"]:
            compared[f"AlignX against {method_label(method)}"] = metrics["alignx_versus"][method]
    found = []
    for name, difference in compared.items():
        verdict = verdict_on(difference[AVERAGE], *difference["interval"])
        tone = verdict if verdict in {"better", "worse"} else ""
        value, detail = signed_per_cent(difference[AVERAGE]), f"95%: {signed_range(difference['interval'])}"
        found.append(KeyFigure(name, value, detail, verdict, tone))
    for question, (read_out, _) in READ_OUTS.items():
        if question in metrics["calibration"]:
            ours = metrics["calibration"][question]["alignx"]
            within = ours["ece"] <= ours["perfect_p95"]
            words, tone = ("no miscalibration shows", "better") if within else ("miscalibrated", "worse")
            detail = f"perfect: up to {number(ours['perfect_p95'])}"
            found.append(KeyFigure(f"ECE of {read_out}", number(ours["ece"]), detail, words, tone))
    return found


def limitations(metrics: Mapping[str, Any], licences: Mapping[str, str]) -> list[str]:
    """What the report does not show.

    Args:
        metrics: what `metrics.json` holds.
        licences: axis -> licence of its data; may be empty.
    """
    found = [
        "Likelihood is not answer quality: a lower loss says that reference answers became likelier, not that "
        f"generated answers are more helpful, safer or truer. {_who_read(metrics)}",
        f"One seed ({metrics['seed']}) and one model ({metrics['model']}): intervals cover the choice of test prompts, "
        "not another training run, another split or another model.",
        _resolution(metrics),
        f"{len(metrics['alignx_versus']) + 1} comparisons are made, each with an interval of its own; about one in 20 "
        "misses its true value.",
        "Calibration is measured on test prompts drawn like the training prompts. An ECE within the range of a "
        "perfectly calibrated predictor is no proof of calibration, only the absence of a visible fault at this n.",
        f"Multiple choice is asked in the {metrics['prompt_style']} prompt style and is not comparable with "
        "published figures; win rates are by likelihood against the base model.",
    ]
    left_out = {axis: count for axis, count in metrics["left_out_because_trained"].items() if count}
    if left_out:
        parts = listed([f"{count} of {axis}" for axis, count in left_out.items()])
        found.append(f"Test prompts left out because this run has trained on them: {parts}.")
    restricted = [
        f"{axis} ({licence})" for axis, licence in licences.items() if "NC" in licence.upper().replace("-", " ").split()
    ]
    if restricted:
        found.append(
            f"Data with a non-commercial licence: {listed(restricted)}. Read its terms before "
            "using what was trained on it."
        )
    return found


def _who_read(metrics: Mapping[str, Any]) -> str:
    if metrics.get("judges"):
        return "No person has read an answer; judge models have, and err as their own sections say."
    return "No person and no judge model has read an answer."


def _difference(found: Mapping[str, Any], other: str) -> str:
    value, (low, high) = found[AVERAGE], found["interval"]
    interval = f"95% interval {signed_range((low, high))}"
    verdict = verdict_on(value, low, high)
    if verdict == "not distinguishable":
        return f"AlignX is not distinguishable from {other}: its loss differs by {signed_per_cent(value)} ({interval})."
    size = signed_per_cent(abs(value)).lstrip("+")
    direction = "lower" if value < 0 else "higher"
    if verdict == "unknown":
        return (
            f"AlignX's loss is {size} {direction} than that of {other}, but there are too few prompts for an interval."
        )
    return f"AlignX is {verdict} than {other}: its loss is {size} {direction} ({interval})."


def _calibration(metrics: Mapping[str, Any], question: str) -> str:
    read_out, words = READ_OUTS[question]
    found = metrics["calibration"][question]["alignx"]
    ece, bound = number(found["ece"]), number(found["perfect_p95"])
    sure, right = found["confidence"], found["accuracy"]
    start = f"Its probabilities for {words} ({read_out}) have an expected calibration error (ECE) of {ece}"
    yardstick = f"{bound}, which a perfectly calibrated predictor exceeds in 5% of such samples"
    if found["ece"] <= found["perfect_p95"]:
        return f"{start}, within {yardstick}: no miscalibration shows; they are right {per_cent(right)} of the time."
    if abs(sure - right) < SMALL_GAP:
        gap = "too sure in some places and not sure enough in others"
    else:
        gap = "on average too sure" if sure > right else "on average not sure enough"
    return (
        f"{start}, above {yardstick}: they are miscalibrated, {gap} (stated {per_cent(sure)}, right {per_cent(right)} "
        "of the time)."
    )


def _resolution(metrics: Mapping[str, Any]) -> str:
    """How small a difference these prompts can show."""
    sizes = [count for axis, count in metrics["n"].items() if axis != AVERAGE]
    text = f"n = {metrics['n'][AVERAGE]} test prompts ({counts(metrics)})"
    if JOINT in metrics["alignx_versus"]:
        low, high = metrics["alignx_versus"][JOINT]["interval"]
        half = per_cent((high - low) / 2, 2)
        text += (
            f": against the joint LoRA the interval reaches {half} to either side, and smaller differences stay hidden"
        )
    if min(sizes) < SMALL_N:
        text += f". The smallest axis has only {min(sizes)} prompts, so its own column is rough"
    return text + "."
