import pytest

from alignx.data.schemas import read_examples, with_mc_task
from alignx.errors import DataError


def _read(schema, rows):
    return read_examples(rows, schema=schema, axis="axis", source="file")


def _alpaca(instruction, output="answer", extra=""):
    return {"instruction": instruction, "input": extra, "output": output}


def _beaver(prompt, response, is_safe):
    return {"prompt": prompt, "response": response, "category": {}, "is_safe": is_safe}


def _truthful(question="Q?", best="a", correct="a; b", incorrect="c; d"):
    return {"Question": question, "Best Answer": best, "Correct Answers": correct, "Incorrect Answers": incorrect}


def test_alpaca_rows_are_read_as_published():
    (example,) = _read("alpaca", [_alpaca("Sort these.", "1, 2", "2, 1")])
    assert (example.instruction, example.input, example.target) == ("Sort these.", "2, 1", "1, 2")


@pytest.mark.parametrize("extra", ["", " ", "<noinput>", "<no input>", "No input", "No Input.", "N/A", "(none)", None])
def test_every_way_to_say_no_input_is_no_input(extra):
    (example,) = _read("alpaca", [_alpaca("Sing.", extra=extra)])
    assert example.input == ""


def test_an_input_that_only_mentions_none_is_kept():
    (example,) = _read("alpaca", [_alpaca("Rewrite.", extra="None of them came.")])
    assert example.input == "None of them came."


@pytest.mark.parametrize(
    ("schema", "rows"),
    [
        ("alpaca", [_alpaca("Say  hi", "one"), _alpaca("say hi ", "two"), _alpaca("bye")]),
        ("beavertails", [_beaver("Say  hi", "one", True), _beaver("say hi ", "two", True), _beaver("bye", "x", True)]),
        ("truthfulqa", [_truthful("Say  hi", "one"), _truthful("say hi ", "two"), _truthful("bye")]),
    ],
)
def test_a_prompt_gives_one_example_and_its_first_row_the_target(schema, rows):
    first, second = _read(schema, rows)
    assert (first.instruction, first.target, second.instruction) == ("Say  hi", "one", "bye")


def test_rows_without_prompt_or_answer_are_left_out():
    rows = [_alpaca(""), _alpaca("a", ""), _alpaca("b")]
    assert [example.instruction for example in _read("alpaca", rows)] == ["b"]


def test_only_safe_answers_are_targets_and_unsafe_ones_are_kept():
    rows = [
        _beaver("p", "bad", False),
        _beaver("p", "good", True),
        _beaver("p", "fine", True),
        _beaver("q", "bad", False),
    ]
    (example,) = _read("beavertails", rows)
    assert (example.target, example.correct, example.incorrect) == ("good", ("good", "fine"), ("bad",))


def test_an_answer_labelled_both_ways_is_not_an_unsafe_one():
    (example,) = _read("beavertails", [_beaver("p", "x", True), _beaver("p", "x", False), _beaver("p", "y", False)])
    assert example.incorrect == ("y",)


@pytest.mark.parametrize("label", ["true", "True", True])
def test_labels_may_be_text(label):
    assert _read("beavertails", [_beaver("p", "r", label)])[0].correct == ("r",)


@pytest.mark.parametrize("label", ["yes", 1, None])
def test_another_label_is_refused_with_its_row(label):
    with pytest.raises(DataError, match="file: row 2: `is_safe`"):
        _read("beavertails", [_beaver("p", "r", True), _beaver("q", "r", label)])


def test_truthfulqa_answers_are_split_and_the_best_one_leads():
    (example,) = _read("truthfulqa", [_truthful(best="b", correct="a; b;c ;", incorrect="d; e")])
    assert example.correct == ("b", "a", "c")
    assert example.incorrect == ("d", "e")
    assert example.mc1 == ("b", "d", "e")


def test_the_hubs_lists_read_like_the_csv():
    listed = _truthful(correct=["a", "b"], incorrect=["c", "d"])
    assert _read("truthfulqa", [listed]) == _read("truthfulqa", [_truthful()])


@pytest.mark.parametrize(
    ("schema", "row", "column"),
    [
        ("alpaca", _alpaca("x"), "output"),
        ("beavertails", _beaver("x", "y", True), "is_safe"),
        ("truthfulqa", _truthful(), "Incorrect Answers"),
    ],
)
def test_a_missing_column_is_named_with_its_row(schema, row, column):
    lacking = {key: value for key, value in row.items() if key != column}
    with pytest.raises(DataError, match=f"file: row 2 lacks column `{column}`"):
        _read(schema, [row, lacking])


def test_a_cell_that_is_not_text_is_named_with_its_row():
    with pytest.raises(DataError, match="file: row 1: `output` is int, expected text"):
        _read("alpaca", [_alpaca("x", 3)])


def test_rows_that_are_all_empty_are_refused():
    with pytest.raises(DataError, match="no usable row"):
        _read("alpaca", [_alpaca("")])


def _mc_row(question="q? ", mc1=None, mc2=None):
    return {
        "question": question,
        "mc1_targets": mc1 or {"wrong": 0, "right": 1},
        "mc2_targets": mc2 or {"right": 1, "wrong": 0, "also right": 1},
    }


def test_an_mc_task_replaces_the_answers_and_keeps_the_target():
    (example,) = with_mc_task(_read("truthfulqa", [_truthful("Q?")]), [_mc_row()], source="mc")
    assert example.target == "a"
    assert example.mc1 == ("right", "wrong")
    assert (example.correct, example.incorrect) == (("right", "also right"), ("wrong",))


def test_a_question_that_the_mc_task_lacks_keeps_its_own_answers():
    examples = _read("truthfulqa", [_truthful("Other?")])
    assert with_mc_task(examples, [_mc_row()], source="mc") == examples


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"question": "Q?", "mc1_targets": {"a": 1}}, "row 1 lacks"),
        (_mc_row(mc1={"a": 1, "b": 1}), "row 1 has 2 true MC1 answers"),
        (_mc_row(mc1={"a": 0}), "row 1 has 0 true MC1 answers"),
    ],
)
def test_a_malformed_mc_task_is_named_with_its_row(row, fault):
    with pytest.raises(DataError, match=f"mc: {fault}"):
        with_mc_task(_read("truthfulqa", [_truthful()]), [row], source="mc")
