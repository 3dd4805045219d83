import pytest
from hypothesis import given
from hypothesis.strategies import builds, integers, lists, randoms, sampled_from, text

from alignx.config import SplitSizes
from alignx.data.example import Example, hash_prompt
from alignx.data.schemas import read_examples
from alignx.data.splits import SPLITS, leave_out_trained, split_examples
from alignx.errors import DataError

counts = integers(1, 6)
sizes = builds(SplitSizes, train=counts, mix=counts, calibration=integers(2, 6), test=counts)


def _examples(count: int) -> list[Example]:
    return [Example("axis", f"prompt {number}", "answer") for number in range(count)]


def _total(wanted: SplitSizes) -> int:
    return sum(getattr(wanted, split) for split in SPLITS)


@given(wanted=sizes, extra=integers(0, 5), salt=text(max_size=5))
def test_splits_are_disjoint_and_as_large_as_asked(wanted, extra, salt):
    splits = split_examples(_examples(_total(wanted) + extra), wanted, salt=salt, source="x")
    assert [len(splits[split]) for split in SPLITS] == [getattr(wanted, split) for split in SPLITS]
    prompts = [example.instruction for split in SPLITS for example in splits[split]]
    assert len(set(prompts)) == len(prompts)


@given(wanted=sizes, random=randoms())
def test_splits_do_not_depend_on_the_order_of_the_input(wanted, random):
    examples = _examples(_total(wanted) + 3)
    shuffled = random.sample(examples, len(examples))
    assert split_examples(examples, wanted, salt="s", source="x") == split_examples(
        shuffled, wanted, salt="s", source="x"
    )


@given(
    answers=lists(sampled_from(["safe one", "safe two", "safe three"]), min_size=1, max_size=3, unique=True),
    variants=lists(sampled_from(["How {}?", " how  {}? ", "HOW {}?", "how\n{}?"]), min_size=4, max_size=4),
)
def test_all_rows_of_a_prompt_share_its_split(answers, variants):
    rows = [
        {"prompt": variants[(number + place) % 4].format(f"x{number}"), "response": answer, "is_safe": True}
        for number in range(12)
        for place, answer in enumerate(answers)
    ]
    examples = read_examples(rows, schema="beavertails", axis="axis", source="x")
    splits = split_examples(examples, SplitSizes(train=4, mix=2, calibration=2, test=4), salt="s", source="x")
    held = {hash_prompt(example.instruction): split for split in SPLITS for example in splits[split]}
    assert len(held) == len(examples) == 12
    assert {hash_prompt(row["prompt"]) for row in rows} == held.keys()
    assert all(set(example.correct) == set(answers) for example in examples)


def test_another_salt_gives_other_splits():
    wanted = SplitSizes(train=10, mix=5, calibration=5, test=5)
    one, two = (split_examples(_examples(40), wanted, salt=salt, source="x") for salt in ("a", "b"))
    assert {example.instruction for example in one.train} != {example.instruction for example in two.train}


def test_case_and_white_space_do_not_change_a_prompts_hash():
    assert hash_prompt(" What\n is  IT? ", salt="s") == hash_prompt("what is it?", salt="s")
    assert hash_prompt("a", salt="s") != hash_prompt("a", salt="t")


def test_too_few_prompts_are_counted_in_the_message():
    with pytest.raises(DataError, match=r"here: 9 distinct usable prompts, but the splits ask for 10 \(train 4"):
        split_examples(_examples(9), SplitSizes(train=4, mix=2, calibration=2, test=2), salt="", source="here")


def test_a_prompt_that_is_not_unicode_is_a_data_error():
    """JSON may hold half of a surrogate pair, which cannot be hashed or written again."""
    row = {"instruction": "half \ud83d", "input": "", "output": "x"}
    with pytest.raises(DataError):
        examples = read_examples([row, row], schema="alpaca", axis="axis", source="file")
        split_examples(examples * 5, SplitSizes(train=1, mix=1, calibration=2, test=1), salt="", source="file")


def test_leave_out_trained_drops_and_counts_what_any_axis_trained_on():
    examples = _examples(6)
    hashes = [example.prompt_hash for example in examples]
    splits = {"one": {"train": hashes[:1], "mix": hashes[1:2], "test": hashes[4:]}, "two": {"calibration": hashes[2:3]}}
    kept, n_left_out = leave_out_trained(iter(examples), splits)
    assert kept == examples[3:]
    assert n_left_out == 3
