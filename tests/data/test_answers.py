from hypothesis import given
from hypothesis.strategies import booleans, builds, fixed_dictionaries, lists, none, sampled_from

from alignx.data.example import normalise_prompt
from alignx.data.schemas import read_examples
from alignx.data.tally import REASONS, Tally, dropped_line
from alignx.errors import DataError

prompts = sampled_from(["a", "b ", " B", "c", "", None])
answers = sampled_from(["x", "y", "z", "", None])
labelled = fixed_dictionaries({"prompt": prompts, "response": answers, "is_safe": booleans()})
alpaca = fixed_dictionaries({"instruction": prompts, "input": none(), "output": answers})
truthful = builds(
    lambda question, best: {"Question": question, "Best Answer": best, "Correct Answers": "", "Incorrect Answers": "w"},
    prompts,
    answers,
)


def _read(schema, rows):
    tally = Tally()
    try:
        return read_examples(rows, schema=schema, axis="axis", source="file", tally=tally), tally
    except DataError:
        return [], tally


@given(rows=lists(labelled, max_size=12))
def test_every_labelled_row_is_an_answer_that_is_kept_or_is_counted_as_dropped(rows):
    examples, tally = _read("beavertails", rows)
    kept = sum(len(example.correct) + len(example.incorrect) for example in examples)
    assert len(rows) == tally.rows == kept + tally.dropped.total()


@given(rows=lists(alpaca, max_size=12))
def test_every_alpaca_row_is_an_example_or_is_counted_as_dropped(rows):
    examples, tally = _read("alpaca", rows)
    assert len(rows) == tally.rows == len(examples) + tally.dropped.total()


@given(rows=lists(truthful, max_size=12))
def test_every_truthfulqa_row_is_an_example_or_is_counted_as_dropped(rows):
    examples, tally = _read("truthfulqa", rows)
    assert len(rows) == tally.rows == len(examples) + tally.dropped.total()


@given(rows=lists(labelled, max_size=12))
def test_no_answer_is_both_good_and_bad_and_no_prompt_comes_twice(rows):
    examples, _ = _read("beavertails", rows)
    assert all(not set(example.correct) & set(example.incorrect) for example in examples)
    assert all(example.target in example.correct for example in examples)
    keys = [normalise_prompt(example.instruction) for example in examples]
    assert len(set(keys)) == len(keys)


def test_each_reason_is_counted_by_its_name():
    rows = [
        {"prompt": "", "response": "x", "is_safe": True},
        {"prompt": "p", "response": None, "is_safe": True},
        {"prompt": "p", "response": "x", "is_safe": True},
        {"prompt": "P ", "response": "x", "is_safe": True},
        {"prompt": "p", "response": "x", "is_safe": False},
        {"prompt": "q", "response": "y", "is_safe": False},
    ]
    _, tally = _read("beavertails", rows)
    reasons = ("empty_prompt", "empty_answer", "duplicate_answer", "both_labels", "no_good_answer")
    assert tally.dropped == dict.fromkeys(reasons, 1)


def test_all_reasons_have_words():
    assert dropped_line({reason: 2 for reason in REASONS}).count("2 ") == len(REASONS)
    assert dropped_line({}) == ""
