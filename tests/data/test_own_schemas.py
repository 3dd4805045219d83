"""A user's own rows: pairs, preferences and conversations, under the user's own column names."""

import pytest

from alignx.data.schemas import read_examples
from alignx.data.tally import Tally
from alignx.errors import DataError


def _read(schema, rows, columns=None, tally=None):
    return read_examples(rows, schema=schema, axis="axis", source="file", columns=columns, tally=tally)


def _talk(*texts, roles=("user", "assistant")):
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def test_pairs_need_a_prompt_and_a_response():
    first, second = _read("pairs", [{"prompt": "p", "response": "a"}, {"prompt": "q", "response": "b", "input": "on"}])
    assert (first.instruction, first.input, first.target) == ("p", "", "a")
    assert (second.input, second.incorrect) == ("on", ())


def test_a_column_map_names_the_users_columns():
    rows = [{"question": "p", "answer": "a", "context": "c", "prompt": "not this one"}]
    (example,) = _read("pairs", rows, {"prompt": "question", "response": "answer", "input": "context"})
    assert (example.instruction, example.input, example.target) == ("p", "c", "a")


@pytest.mark.parametrize(("good", "bad"), [(True, False), (1, 0), ("1", "0"), ("true", "False")])
def test_a_mapped_label_says_which_answers_are_targets(good, bad):
    rows = [{"prompt": "p", "response": "worse", "ok": bad}, {"prompt": "p", "response": "better", "ok": good}]
    (example,) = _read("pairs", rows, {"label": "ok"})
    assert (example.target, example.incorrect) == ("better", ("worse",))


def test_a_column_called_label_means_nothing_until_it_is_mapped():
    assert _read("pairs", [{"prompt": "p", "response": "a", "label": "sports"}])[0].target == "a"
    with pytest.raises(DataError, match="file: row 1: `label` is 'sports', expected true or false"):
        _read("pairs", [{"prompt": "p", "response": "a", "label": "sports"}], {"label": "label"})


def test_a_prompt_on_another_input_is_a_repeated_prompt():
    tally = Tally()
    rows = [{"prompt": "p", "response": text, "input": text} for text in ("a", "b")]
    assert _read("pairs", rows, tally=tally)[0].correct == ("a",)
    assert tally.dropped == {"duplicate_prompt": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {
            "prompt": _talk("p"),
            "chosen": _talk("a", roles=("assistant",)),
            "rejected": _talk("b", roles=("assistant",)),
        },
        {"prompt": "p", "chosen": _talk("p", "a"), "rejected": _talk("p", "b")},
    ],
)
def test_the_chosen_answer_is_learned_and_the_rejected_one_kept_to_evaluate_with(row):
    (example,) = _read("preference", [row])
    assert (example.instruction, example.target, example.incorrect) == ("p", "a", ("b",))


def test_a_preference_within_a_longer_conversation_is_dropped_because_the_prompt_is_not_all_it_answers():
    tally = Tally()
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": _talk("q", "x", "r", "a"), "rejected": _talk("q", "x", "r", "b")},
        {"prompt": _talk("q", "x", "r"), "chosen": "a", "rejected": "b"},
    ]
    assert len(_read("preference", rows, tally=tally)) == 1
    assert tally.dropped == {"several_turns": 2}


def test_a_prompt_with_several_preferences_keeps_every_rejected_answer():
    rows = [{"prompt": "p", "chosen": "a", "rejected": rejected} for rejected in ("b", "c", "c", "a")]
    (example,) = _read("preference", rows)
    assert example.incorrect == ("b", "c")


@pytest.mark.parametrize(
    "turns",
    [
        _talk("p", "a"),
        [{"role": "system", "content": "Be odd."}, *_talk("p", "a")],
        [{"from": "human", "value": "p"}, {"from": "gpt", "value": "a"}],
    ],
)
def test_a_conversation_gives_its_first_exchange(turns):
    (example,) = _read("messages", [{"conversations": turns}], {"messages": "conversations"})
    assert (example.instruction, example.target) == ("p", "a")


def test_conversations_that_go_on_are_counted():
    tally = Tally()
    _read("messages", [{"messages": _talk("p", "a", "q", "b")}, {"messages": _talk("r", "c")}], tally=tally)
    assert tally.shortened == 1


def test_conversations_without_an_exchange_are_dropped():
    tally = Tally()
    rows = [
        {"messages": _talk("p", "a")},
        {"messages": []},
        {"messages": _talk("q")},
        {"messages": _talk("q", "b")[1:]},
    ]
    assert len(_read("messages", rows, tally=tally)) == 1
    assert tally.dropped == {"empty_prompt": 2, "empty_answer": 1}


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (["p", "a"], "`messages`: turn 1 is str"),
        ([{"role": "tool", "content": "x"}], "turn 1 has role 'tool'; known roles: user"),
        ([{"role": "user", "content": 3}], "turn 1 is int, expected text"),
        (3, "`messages` is int, expected text"),
    ],
)
def test_a_turn_that_is_none_is_named_with_its_row(turns, says):
    with pytest.raises(DataError, match="file: row 2: ") as caught:
        _read("messages", [{"messages": _talk("p", "a")}, {"messages": turns}])
    assert says in str(caught.value)


def test_a_missing_column_names_the_nearest_and_the_ways_to_map_it():
    with pytest.raises(DataError) as caught:
        _read("pairs", [{"prompts": "p", "response": "a"}])
    assert "row 1 lacks column `prompt`" in str(caught.value)
    assert "did you mean `prompts`?" in str(caught.value) and "--columns prompt=YOURS" in str(caught.value)


def test_a_mapped_column_that_is_missing_is_named_as_the_user_wrote_it():
    with pytest.raises(DataError, match=r"lacks column `question`.*columns: \{prompt: YOURS\}"):
        _read("pairs", [{"prompt": "p", "response": "a"}], {"prompt": "question"})
    with pytest.raises(DataError, match="lacks column `kind`"):
        _read("pairs", [{"prompt": "p", "response": "a"}], {"label": "kind"})


def test_truthfulqa_in_the_hubs_spelling_reads_like_the_csv():
    row = {"question": "Q?", "best_answer": "a", "correct_answers": ["a", "b"], "incorrect_answers": ["c"]}
    (example,) = _read("truthfulqa", [row])
    assert (example.instruction, example.target, example.mc1) == ("Q?", "a", ("a", "c"))
