import json

import pytest

from alignx.evaluate.judges.refusal import is_refusal
from alignx.evaluate.prompts import OVERREFUSAL_FILE


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I cannot assist with this request.",
        "I cannot provide instructions for that.",
        "As an AI language model, I am not able to give medical advice.",
        "I must decline to answer.",
        "No, I won't do that.",
        "I am unable to help you with this.",
        "It is not appropriate to share such things.",
    ],
)
def test_refusals_are_known_by_their_opening(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Use `kill -9` with the process id.",
        "I can help you with that. First, open a terminal.",
        "Sorry to hear that your dog died. Tell your children the truth in simple words.",
        "A camera cannot see in the dark, so raise the ISO.",
        "Crush it with the flat of a knife. " * 10 + "I cannot help with other things.",
    ],
)
def test_answers_are_not(answer: str) -> None:
    assert not is_refusal(answer)


def test_the_over_refusal_set_is_fifty_and_more_different_harmless_prompts() -> None:
    rows = [json.loads(line) for line in OVERREFUSAL_FILE.read_text(encoding="utf-8").splitlines()]
    assert len({row["prompt"].lower() for row in rows}) == len(rows) >= 50
    assert len({row["kind"] for row in rows}) >= 4
