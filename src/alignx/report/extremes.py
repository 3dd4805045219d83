"""The prompts on which AlignX gains and loses most against the base, side by side.

By the judges where they judged; else by the likelihood of the reference answer, the only thing that was measured then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.evaluate.judging.figure import SAFETY_SCORE, TI, TRUTH_RATE, WIN_RATE
from alignx.evaluate.judging.kept import current_answers, current_verdicts
from alignx.evaluate.judging.rows import JudgedRow
from alignx.evaluate.judging.scores import SECTION_OF, measure
from alignx.evaluate.methods import ALIGNX, BASE
from alignx.evaluate.pipeline import TEST, find_test_examples
from alignx.report.section import Section, SideBySide
from alignx.report.wording import number
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_jsonl

SHOWN = 10
# Measure -> (what a judge says, whether more is better), the most telling first.
_JUDGED = {
    WIN_RATE: ("preferred to the base's answer", True),
    TI: ("true and informative", True),
    TRUTH_RATE: ("true", True),
    SAFETY_SCORE: ("unsafe", False),
}
# Prompts of harmful requests are told apart by safety first, all others by it last.
_SAFETY_FIRST = (WIN_RATE, SAFETY_SCORE, TI, TRUTH_RATE)
Prompt = tuple[str, str]  # axis, prompt hash


@dataclass(frozen=True)
class _Gain:
    """How much better AlignX does on a prompt: `rank` sorts, `about` says it."""

    prompt: Prompt
    rank: tuple[float, float]
    about: Sequence[str]


def extremes_section(config: RunConfig, run: RunDirectory, metrics: Mapping[str, Any]) -> Section | None:
    """The section, or none where figures by prompt, or the prompts themselves, are not there.

    Raises:
        ArtifactError: a file is damaged.
    """
    path = run.evaluation_folder(TEST) / "prompts.jsonl"
    if not path.is_file() or not (run.root / "data").is_dir():  # a run may be passed on without its data
        return None
    rows = {(row["axis"], row["prompt_hash"]): row for row in read_jsonl(path)}
    if not all({ALIGNX, BASE} <= row["loss"].keys() for row in rows.values()):
        return None
    judged = metrics.get("judges")
    answers = {} if judged is None else current_answers(config, run, judged["max_new_tokens"])
    verdicts = [] if judged is None else current_verdicts(config, run, judged["max_new_tokens"])
    by_judges = judged_gains(verdicts, rows)
    gains = by_judges or likelihood_gains(rows)
    answered = [gain for gain in gains if all((method, *gain.prompt) in answers for method in (ALIGNX, BASE))]
    gains = answered or gains
    ordered = sorted(gains, key=lambda gain: gain.rank)
    shown = min(SHOWN, len(ordered) // 2)
    if shown == 0:
        return None
    examples = {(one.axis, one.prompt_hash): one for one in find_test_examples(config, run, None)[0]}
    texts = {key: {m: answers[m, *key].answer for m in (BASE, ALIGNX) if (m, *key) in answers} for key in rows}
    how = (
        "Ordered by what the judges say of AlignX's answer and the base's, then by likelihood."
        if by_judges
        else "No judge has compared answers here: prompts are ordered by how much likelier AlignX finds the reference "
        "answer than the base does, which is not the same as a better answer."
    )
    what = "" if answered else " No judged answers are kept, so the reference answer is shown."
    blocks = [
        _shown(gain, f"{word} {number_of} of {shown}", examples.get(gain.prompt), texts[gain.prompt])
        for word, part in (("Most improved", ordered[::-1][:shown]), ("Least improved", ordered[:shown]))
        for number_of, gain in enumerate(part, start=1)
    ]
    return Section("extremes", f"The {shown} most and least improved answers", [how + what], blocks)


def likelihood_gains(rows: Mapping[Prompt, Mapping[str, Any]]) -> list[_Gain]:
    """Gains in nats a target token."""
    found = []
    for key, row in rows.items():
        gain = row["loss"][BASE] - row["loss"][ALIGNX]
        about = f"Loss of the reference answer: base {number(row['loss'][BASE])}, AlignX {number(row['loss'][ALIGNX])}."
        found.append(_Gain(key, (gain, 0.0), [about]))
    return found


def judged_gains(verdicts: Sequence[JudgedRow], rows: Mapping[Prompt, Mapping[str, Any]]) -> list[_Gain]:
    """Gains by the judges, of prompts with a verdict on both answers: the first measure that a prompt has counts."""
    by_judge: dict[str, list[JudgedRow]] = {}
    for verdict in verdicts:
        by_judge.setdefault(SECTION_OF.get(verdict.judge, verdict.judge), []).append(verdict)
    harmful = {verdict.group for verdict in verdicts if verdict.dataset == "beavertails"}
    measured = {judge: measure(of_judge) for judge, of_judge in by_judge.items()}
    found = []
    for key, row in rows.items():
        gain = _judged_gain(key, measured, _SAFETY_FIRST if key[0] in harmful else tuple(_JUDGED))
        if gain is not None:
            value, about = gain
            by_loss = row["loss"][BASE] - row["loss"][ALIGNX]
            found.append(_Gain(key, (value, by_loss), [about, *likelihood_gains({key: row})[0].about]))
    return found


def _judged_gain(key: Prompt, measured: Mapping[str, Any], order: Sequence[str]) -> tuple[float, str] | None:
    axis, prompt = key
    for name in order:
        words, more_is_better = _JUDGED[name]
        for judge, by_measure in measured.items():
            by_method = by_measure.get(name, {})
            ours = by_method.get(ALIGNX, {}).get(axis, {}).get(prompt)
            theirs = 0.5 if name == WIN_RATE else by_method.get(BASE, {}).get(axis, {}).get(prompt)
            if ours is None or theirs is None:
                continue
            said = number(ours, 2) if name == WIN_RATE else f"base {number(theirs, 2)}, AlignX {number(ours, 2)}"
            value = (ours - theirs) if more_is_better else (theirs - ours)
            return value, f"By judge {judge}, {words} (0 to 1): {said}."
    return None


def _shown(gain: _Gain, place: str, example: Example | None, texts: Mapping[str, str]) -> SideBySide:
    axis, prompt_hash = gain.prompt
    asked = f"(prompt {prompt_hash[:12]})"
    if example is not None:
        asked = f"{example.instruction}\n\n{example.input}" if example.input else example.instruction
    columns = [("Base", texts[BASE]), ("AlignX", texts[ALIGNX])] if {BASE, ALIGNX} <= texts.keys() else []
    if example is not None and not columns:
        columns = [("Reference answer", example.target)]
    return SideBySide(f"{place} ({axis})", gain.about, [("Prompt", asked), *columns])
