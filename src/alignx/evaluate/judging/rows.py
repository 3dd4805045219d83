"""Answers -> questions to a judge -> judged rows, one for each question, as `judged/<judge>.jsonl` keeps them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignx.data.example import hash_prompt
from alignx.errors import ArtifactError
from alignx.evaluate.judges.interface import PREFERENCE, Item, Judge, Judgement
from alignx.evaluate.judging.answers import KeptAnswer
from alignx.evaluate.judging.verdicts import template_hash
from alignx.runs.files import read_jsonl

OURS_FIRST, BASELINE_FIRST, IDENTICAL = "ours first", "baseline first", "identical"


@dataclass(frozen=True)
class JudgedRow:
    """One question about one answer, and what came of it.

    Attributes:
        judge: name of the judge.
        model: of the judge.
        template: hash of the judge's prompt template and settings.
        question: `preference`, `safety`, `refusal`, `truth` or `info`.
        method: whose answer it is.
        baseline: whose answer it was compared with, for `preference`; else empty.
        group: axis the prompt comes from, or `overrefusal`.
        dataset: schema of that data, or `overrefusal`.
        prompt_hash: the prompt.
        answer_key: the kept answer.
        order: for `preference` which answer was shown first, or `identical`, which is a tie without a question.
        length: characters of the answer; `other_length` of the baseline's.
        state: `judged`, `unparseable` or `failed`.
        value: the verdict, for `preference` seen from the method: 1 it is better.
        detail: more of the verdict.
        reason: why there is none.
        reply: what the judge said.
    """

    judge: str
    model: str
    template: str
    question: str
    method: str
    baseline: str
    group: str
    dataset: str
    prompt_hash: str
    answer_key: str
    order: str
    length: int
    other_length: int
    state: str
    value: float | None
    detail: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    reply: str = ""


@dataclass(frozen=True)
class Ask:
    """A question still to be asked, and the row it will fill; no item where the answers are identical."""

    item: Item | None
    question: str
    answer: KeptAnswer
    other: KeptAnswer | None
    order: str


def questions_to(
    judge: Judge, answers: Mapping[str, Sequence[KeptAnswer]], baseline: Sequence[KeptAnswer]
) -> list[Ask]:
    """Everything a judge is asked; nothing about answers to prompts that it was trained on.

    Args:
        judge: the judge.
        answers: method -> answers, of every method to the same prompts.
        baseline: the baseline's answers to these prompts.
    """
    asks: list[Ask] = []
    for rows in answers.values():
        for answer, other in zip(rows, baseline, strict=True):
            if _knows(judge, answer):
                continue
            for question in judge.questions(answer.dataset):
                if question == PREFERENCE:
                    asks += _pair(answer, other)
                else:
                    asks.append(Ask(Item(question, answer.prompt, answer.answer), question, answer, None, ""))
    return asks


def left_out_prompts(judge: Judge, answers: Sequence[KeptAnswer]) -> dict[str, int]:
    """Group -> prompts that a judge is not asked about because it was trained on them.

    Args:
        judge: the judge.
        answers: one a prompt.
    """
    known = [answer for answer in answers if _knows(judge, answer) and judge.questions(answer.dataset)]
    return dict(Counter(answer.group for answer in known))


def judged_row(judge: Judge, ask: Ask, judgement: Judgement | None) -> JudgedRow:
    """The row that a judgement makes; none is the tie of identical answers."""
    made = judgement or Judgement("judged", 0.5)
    value = made.value
    if value is not None and ask.order == BASELINE_FIRST:
        value = 1 - value
    return JudgedRow(
        judge=judge.name,
        model=judge.model,
        template=template_hash(judge, ask.question),
        question=ask.question,
        method=ask.answer.method,
        baseline=ask.other.method if ask.other else "",
        group=ask.answer.group,
        dataset=ask.answer.dataset,
        prompt_hash=ask.answer.prompt_hash,
        answer_key=ask.answer.key,
        order=ask.order,
        length=len(ask.answer.answer),
        other_length=len(ask.other.answer) if ask.other else 0,
        state=made.state,
        value=value,
        detail=made.detail,
        reason=made.reason,
        reply=made.reply,
    )


def read_judged(path: Path) -> list[JudgedRow]:
    """Rows of one judge.

    Raises:
        ArtifactError: damaged.
    """
    try:
        return [JudgedRow(**row) for row in read_jsonl(path)]
    except TypeError as error:
        raise ArtifactError(f"{path}: a row is damaged ({error}); remove the file and judge again") from error


def as_document(row: JudgedRow) -> dict[str, Any]:
    """For jsonl."""
    return asdict(row)


def _knows(judge: Judge, answer: KeptAnswer) -> bool:
    """Whether a judge was trained on the prompt, as its data's instruction alone or with the input after it."""
    return answer.prompt_hash in judge.trained_on or hash_prompt(answer.prompt) in judge.trained_on


def _pair(answer: KeptAnswer, other: KeptAnswer) -> list[Ask]:
    """Both orders; one tie where the answers are the same text, which no judge needs to be asked about."""
    if answer.answer == other.answer:
        return [Ask(None, PREFERENCE, answer, other, IDENTICAL)]
    first = Item(PREFERENCE, answer.prompt, answer.answer, other.answer)
    second = Item(PREFERENCE, answer.prompt, other.answer, answer.answer)
    return [
        Ask(first, PREFERENCE, answer, other, OURS_FIRST),
        Ask(second, PREFERENCE, answer, other, BASELINE_FIRST),
    ]
