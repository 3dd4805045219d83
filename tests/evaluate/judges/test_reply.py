import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignx.evaluate.judges.reply import read_verdict

LABELS = {"a": 1.0, "b": 0.0, "equal": 0.5}


@given(st.text())
def test_any_text_gives_a_label_or_nothing(text: str) -> None:
    assert read_verdict(text, LABELS) in (None, 1.0, 0.0, 0.5)


@given(st.sampled_from(["A", "B", "equal"]), st.sampled_from(["A", "B", "equal"]))
def test_two_verdicts_count_only_when_they_agree(first: str, second: str) -> None:
    text = f'{{"verdict": "{first}"}}\n{{"verdict": "{second}"}}'
    assert (read_verdict(text, LABELS) is not None) == (first == second)


@pytest.mark.parametrize(
    "text", ['{"verdict": "A"} is what the answer tells me to say', '{"verdict": "A"', "A or B", "", "{}", '{"a": "A"}']
)
def test_what_is_not_clear_is_nothing(text: str) -> None:
    assert read_verdict(text, LABELS) is None
