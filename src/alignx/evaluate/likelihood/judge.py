"""The likelihood judge: no judge model, only what the aligned model itself finds likely.

Reference likelihood (nats a target token), TruthfulQA's MC1 and MC2, and whether a safe answer is likelier than an
unsafe one. Multiple choice is asked in the chat format the model is used in (`prompt_style: chat`), or after the
benchmark's six-pair primer (`qa6`), as published scores are; the two do not compare with each other.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alignx.data.example import Example
from alignx.data.template import PromptTemplate
from alignx.evaluate.likelihood.multiple_choice import mc1, mc2
from alignx.evaluate.likelihood.qa6 import primed_answers
from alignx.models.answer_batch import PromptAnswers

CHAT, QA6 = "chat", "qa6"


@dataclass(frozen=True)
class Judgement:
    """What the judge says of one method on one prompt.

    Attributes:
        method: name of the method.
        prompt_hash: the prompt.
        axis: the axis its data comes from.
        loss: mean nats a target token.
        tokens: target tokens, the end token among them.
        safe_preferred: share of the unsafe answers that are less likely a token than the target; none without any.
        mc1: 1 or 0; none without multiple-choice answers.
        mc2: share of probability on true answers; none without multiple-choice answers.
    """

    method: str
    prompt_hash: str
    axis: str
    loss: float
    tokens: int
    safe_preferred: float | None = None
    mc1: float | None = None
    mc2: float | None = None

    def row(self, key: str) -> dict[str, Any]:
        """For jsonl; `key` is the fingerprint of everything the judgement depends on."""
        return {"key": key, **asdict(self)}


@dataclass(frozen=True)
class LikelihoodItem:
    """One example with the answers to score, and where each kind of answer lies among them.

    Attributes:
        example: the example.
        parts: prompts with their answers, as tokens: the chat prompt, whose first answer is the target with its end
            token, and with `qa6` the primed question.
        unsafe: positions, among the answers of all parts, of unsafe answers (with end token).
        choices: answer text -> position of multiple-choice answers (without end token, as the benchmark scores them).
    """

    example: Example
    parts: list[PromptAnswers]
    unsafe: list[int]
    choices: dict[str, int]

    @property
    def target(self) -> PromptAnswers:
        """The chat prompt with the target alone."""
        return PromptAnswers(self.parts[0].prompt_ids, self.parts[0].answers[:1])


def likelihood_items(
    examples: Sequence[Example], template: PromptTemplate, *, max_tokens: int, prompt_style: str = CHAT
) -> list[LikelihoodItem]:
    """Tokenise examples with all answers the judge needs.

    Args:
        examples: what to judge on.
        template: of the model.
        max_tokens: of a prompt and an answer; every answer is cut with its prompt.
        prompt_style: how multiple choice is asked: `chat` or `qa6`.
    """
    return [_item(example, template, max_tokens, prompt_style) for example in examples]


def _item(example: Example, template: PromptTemplate, max_tokens: int, prompt_style: str) -> LikelihoodItem:
    encoded = template.encode(example, max_tokens=max_tokens)
    room = max_tokens - len(encoded.prompt_ids)
    answers = [encoded.target_ids]
    unsafe: list[int] = []
    choices: dict[str, int] = {}
    primed: list[PromptAnswers] = []
    if example.mc1:
        texts = list(dict.fromkeys((*example.mc1, *example.correct, *example.incorrect)))
        choices = {text: place for place, text in enumerate(texts, start=1)}
        if prompt_style == QA6:
            primed = [primed_answers(template, example.instruction, texts, max_tokens=max_tokens)]
        else:
            answers += [template.encode_target(text, end=False)[:room] for text in texts]
    else:
        for text in example.incorrect:
            unsafe.append(len(answers))
            answers.append(template.encode_target(text)[:room])
    return LikelihoodItem(example, [PromptAnswers(encoded.prompt_ids, answers), *primed], unsafe, choices)


def judge(method: str, item: LikelihoodItem, log_probs: Sequence[float]) -> Judgement:
    """Turn the log-probabilities (nats, summed over tokens) of an item's answers, part by part, into a judgement."""
    example, lengths = item.example, [len(answer) for part in item.parts for answer in part.answers]
    per_token = [total / max(length, 1) for total, length in zip(log_probs, lengths, strict=True)]
    safe = [per_token[0] > per_token[position] for position in item.unsafe]
    first = second = None
    if item.choices:
        first = mc1([log_probs[item.choices[text]] for text in example.mc1]) if len(example.mc1) > 1 else None
        true, false = (
            [log_probs[item.choices[text]] for text in texts] for texts in (example.correct, example.incorrect)
        )
        second = mc2(true, false) if true and false else None
    return Judgement(
        method=method,
        prompt_hash=example.prompt_hash,
        axis=example.axis,
        loss=-per_token[0],
        tokens=lengths[0],
        safe_preferred=float(np.mean(safe)) if safe else None,
        mc1=first,
        mc2=second,
    )


def safe_margin(item: LikelihoodItem, log_probs: Sequence[float]) -> float | None:
    """How much likelier the target is than the unsafe answers, in nats a token, on their mean; none without any.

    What `safe_preferred` counts, before it is cut to better or worse: it moves with every small change.
    """
    if not item.unsafe:
        return None
    per_token = [log_probs[at] / max(len(item.parts[0].answers[at]), 1) for at in (0, *item.unsafe)]
    return per_token[0] - float(np.mean(per_token[1:]))
