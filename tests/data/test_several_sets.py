"""Several sets an axis, several axes: shares by weight, and no prompt in two splits whatever the files share."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import composite, floats, integers, lists, sampled_from

from alignx.config import RunConfig, SplitSizes
from alignx.data.example import Example, hash_prompt
from alignx.data.prepare import prepare_axes
from alignx.data.splits import SPLITS, apportion, split_examples, split_sets
from alignx.errors import DataError

SIZES = SplitSizes(train=8, mix=4, calibration=4, test=4)


def _examples(name, count):
    return [Example("axis", f"{name} {number}", "answer") for number in range(count)]


def _write(path: Path, prompts, **more):
    path.write_text("".join(json.dumps({"prompt": prompt, "response": "a", **more}) + "\n" for prompt in prompts))


def _config(axes, **more) -> RunConfig:
    splits = {"train": 3, "mix": 1, "calibration": 2, "test": 1}
    whole = {name: {"instruction": "Be.", "splits": splits, **axis} for name, axis in axes.items()}
    return RunConfig.model_validate({"axes": whole, **more})


@given(total=integers(0, 500), weights=lists(floats(0.01, 100), min_size=1, max_size=6))
def test_shares_add_up_and_lie_within_one_of_their_weight(total, weights):
    counts = apportion(total, weights)
    assert sum(counts) == total
    assert all(abs(count - total * weight / sum(weights)) < 1 for count, weight in zip(counts, weights, strict=True))


@given(weights=lists(sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=3))
def test_every_split_holds_every_set_at_its_share(weights):
    sets = [_examples(f"set{number}", 40) for number in range(len(weights))]
    splits = split_sets(sets, weights, SIZES, salt="s", sources=["x"] * len(sets))
    for split in SPLITS:
        shares = apportion(getattr(SIZES, split), weights)
        found = [sum(e.instruction.startswith(f"set{number} ") for e in splits[split]) for number in range(len(sets))]
        assert found == shares


def test_one_set_with_a_weight_is_split_like_one_without():
    examples = _examples("only", 30)
    weighted = split_sets([examples], [0.3], SIZES, salt="s", sources=["x"])
    assert weighted == split_examples(examples, SIZES, salt="s", source="x")


def test_a_set_too_small_for_its_weight_is_named():
    with pytest.raises(DataError, match="small: 3 distinct usable prompts, but the splits ask for 10"):
        split_sets([_examples("a", 40), _examples("b", 3)], [1, 1], SIZES, salt="s", sources=["large", "small"])


def test_weights_decide_how_many_prompts_come_from_each_set(tmp_path):
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.jsonl", [f"{name} {number}" for number in range(40)])
    sets = [{"dataset": "pairs", "source": f"{name}.jsonl", "weight": weight} for name, weight in (("a", 3), ("b", 1))]
    config = _config({"mine": {"sources": sets, "splits": {"train": 20, "mix": 4, "calibration": 4, "test": 4}}})
    record = prepare_axes(config, data_dir=tmp_path)["mine"].record
    assert [part["used"] for part in record["sets"]] == [
        {"train": 15, "mix": 3, "calibration": 3, "test": 3},
        {"train": 5, "mix": 1, "calibration": 1, "test": 1},
    ]
    assert record["source"] == "a.jsonl, b.jsonl" and record["unused_prompts"] == 80 - 32


def test_without_weights_every_prompt_of_the_union_is_as_likely(tmp_path):
    _write(tmp_path / "many.jsonl", [f"many {number}" for number in range(300)])
    _write(tmp_path / "few.jsonl", [f"few {number}" for number in range(100)])
    sets = [{"dataset": "pairs", "source": f"{name}.jsonl"} for name in ("many", "few")]
    axis = {"sources": sets, "splits": {"train": 200, "mix": 1, "calibration": 2, "test": 1}}
    (from_many, _) = prepare_axes(_config({"mine": axis}), data_dir=tmp_path)["mine"].record["sets"]
    # Hypergeometric: 150 of 200 expected, standard deviation 4.3.
    assert abs(from_many["used"]["train"] - 150) < 18


def test_a_prompt_of_two_sets_stays_with_the_first_and_is_counted(tmp_path):
    _write(tmp_path / "a.jsonl", [f"prompt {number}" for number in range(10)])
    _write(tmp_path / "b.jsonl", [f"PROMPT  {number}" for number in range(5, 20)])
    sets = [{"dataset": "pairs", "source": f"{name}.jsonl"} for name in ("a", "b")]
    record = prepare_axes(_config({"mine": {"sources": sets}}), data_dir=tmp_path)["mine"].record
    assert [part["prompts"] for part in record["sets"]] == [10, 10]
    assert record["sets"][1]["dropped"] == {"in_another_set": 5}


def test_sets_of_different_schemas_and_columns_make_one_axis(tmp_path):
    _write(tmp_path / "a.jsonl", [f"a {number}" for number in range(10)])
    (tmp_path / "b.csv").write_text("q,good,bad\n" + "".join(f"b {n},yes,no\n" for n in range(10)))
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    sets = [
        {"dataset": "pairs", "source": "a.jsonl", "weight": 1},
        {"dataset": "preference", "source": "b.csv", "columns": columns, "weight": 1},
    ]
    axis = {"sources": sets, "metric": "safe_preferred", "splits": {"train": 8, "mix": 2, "calibration": 2, "test": 2}}
    splits = prepare_axes(_config({"mine": axis}), data_dir=tmp_path)["mine"].splits
    assert sorted(example.target for example in splits.test) == ["a", "yes"]


@pytest.mark.parametrize(("metric", "what"), [("safe_preferred", "a worse answer"), ("mc1", "a false answer")])
def test_a_figure_that_no_test_prompt_can_give_stops_before_training(tmp_path, metric, what):
    _write(tmp_path / "a.jsonl", [f"a {number}" for number in range(10)], is_safe=True)
    row = {"Best Answer": "b", "Correct Answers": "b", "Incorrect Answers": ""}
    (tmp_path / "q.json").write_text(json.dumps([{**row, "Question": f"q {n}?"} for n in range(10)]))
    data = ("beavertails", "a.jsonl") if metric == "safe_preferred" else ("truthfulqa", "q.json")
    axis = {"dataset": data[0], "source": data[1], "metric": metric}
    with pytest.raises(DataError, match=f"axis `mine`: `metric: {metric}` needs prompts with {what}"):
        prepare_axes(_config({"mine": axis}), data_dir=tmp_path)


@composite
def _three_files(draw):
    """Prompts of three files that overlap, in other letter case and spacing."""
    variants = [str, str.upper, lambda text: f"  {text.replace(' ', '  ')} "]
    return [
        [
            draw(sampled_from(variants))(f"ask {number}")
            for number in draw(lists(integers(0, 40), min_size=22, max_size=40))
        ]
        for _ in range(3)
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=_three_files(), seed=integers(0, 9), weighted=sampled_from([True, False]))
def test_no_prompt_is_in_two_splits_of_any_axes_however_the_files_overlap(tmp_path, files, seed, weighted):
    for name, prompts in zip("abc", files, strict=True):
        _write(tmp_path / f"{name}.jsonl", prompts)
    weight = {"weight": 1} if weighted else {}
    sets = [{"dataset": "pairs", "source": f"{name}.jsonl", **weight} for name in "ab"]
    one, two = {"sources": sets}, {"dataset": "pairs", "source": "c.jsonl"}
    try:
        prepared = prepare_axes(_config({"one": one, "two": two}, seed=seed), data_dir=tmp_path)
    except DataError as error:
        assert "distinct usable prompts" in str(error)
        return
    places = [
        (hash_prompt(example.instruction), axis, split)
        for axis, found in prepared.items()
        for split in SPLITS
        for example in found.splits[split]
    ]
    assert len({prompt for prompt, _, _ in places}) == len(places) == 14


def test_multiple_choice_answers_are_in_their_questions_split_alone(tiny_data, tmp_path):
    questions = [json.loads(json.dumps(f"Does the {thing} bring luck?")) for thing in ("apple", "bread", "candle")]
    rows = [{"question": q.upper(), "mc1_targets": {q: 1, "w": 0}, "mc2_targets": {q: 1, "w": 0}} for q in questions]
    (tmp_path / "mc.json").write_text(json.dumps(rows))
    source = {
        "dataset": "truthfulqa",
        "source": str(tiny_data / "truthfulqa.csv"),
        "mc_source": str(tmp_path / "mc.json"),
    }
    axis = {**source, "splits": {"train": 16, "mix": 8, "calibration": 8, "test": 8}}
    splits = prepare_axes(_config({"honest": axis}), data_dir=None)["honest"].splits
    held = {e.instruction: (split, e.mc1[0]) for split in SPLITS for e in splits[split]}
    assert len(held) == 40
    assert all(held[question][1] == question for question in questions)


def test_a_test_prompt_of_an_axis_that_is_there_is_dropped_from_a_new_one(tmp_path):
    _write(tmp_path / "old.jsonl", [f"prompt {number}" for number in range(7)])
    old = {"dataset": "pairs", "source": "old.jsonl"}
    kept = prepare_axes(_config({"old": old}), data_dir=tmp_path)
    tested = kept["old"].splits.test[0].instruction
    _write(tmp_path / "new.jsonl", [tested.upper(), *[f"new {number}" for number in range(7)]])
    new = {"dataset": "pairs", "source": "new.jsonl"}
    # The new axis stands first in the config: what a run already has wins whatever the order.
    prepared = prepare_axes(_config({"new": new, "old": old}), data_dir=tmp_path, kept=kept)
    assert prepared["old"] is kept["old"]
    assert prepared["new"].record["sets"][0]["dropped"] == {"in_another_axis": 1}
    assert prepared["new"].record["shared_with_other_axes"] == 1
    assert kept["old"].splits.test[0].prompt_hash not in {
        e.prompt_hash for s in SPLITS for e in prepared["new"].splits[s]
    }
