import json

import pytest

from alignx.data.prepare import data_fingerprint, prepare_axes, read_splits, write_axes
from alignx.data.splits import SPLITS
from alignx.errors import ArtifactError, DataError
from alignx.runs import RunDirectory


def _prepare(config, run, data_dir=None):
    write_axes(run, prepare_axes(config, data_dir=data_dir), salt=config.split_salt)


def _hashes(run, axis):
    splits = read_splits(run, axis)
    return {split: [example.prompt_hash for example in splits[split]] for split in SPLITS}


def test_what_was_prepared_is_read_back(tiny_config, tmp_path):
    config, run = tiny_config("unused"), RunDirectory(tmp_path)
    prepared = prepare_axes(config, data_dir=None)
    write_axes(run, prepared, salt=config.split_salt)
    for axis in config.axes:
        assert read_splits(run, axis) == prepared[axis].splits


def test_splits_json_names_the_prompts_of_every_split(tiny_config, tmp_path):
    config, run = tiny_config("unused"), RunDirectory(tmp_path)
    _prepare(config, run)
    document = json.loads(run.splits_path.read_text(encoding="utf-8"))
    assert document["salt"] == config.split_salt
    assert {axis: record["splits"] for axis, record in document["axes"].items()} == {
        axis: _hashes(run, axis) for axis in config.axes
    }


def test_preparing_again_changes_no_byte(tiny_config, tmp_path):
    config, run = tiny_config("unused"), RunDirectory(tmp_path)
    _prepare(config, run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    _prepare(config, run)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_prompt_that_two_axes_have_stays_with_the_first_and_is_counted(tiny_config, tmp_path):
    rows = [{"instruction": f"Prompt {number}.", "input": "", "output": "x"} for number in range(30)]
    (tmp_path / "one.json").write_text(json.dumps(rows[:10]))
    (tmp_path / "two.json").write_text(json.dumps([{**row, "instruction": row["instruction"].upper()} for row in rows]))
    splits = {"train": 4, "mix": 2, "calibration": 2, "test": 2}
    axes = {
        name: {"dataset": "alpaca", "source": f"{name}.json", "splits": splits, "instruction": "Be."}
        for name in ("one", "two")
    }
    config = tiny_config("unused")
    config = type(config).model_validate({**config.model_dump(), "axes": axes})
    run = RunDirectory(tmp_path / "run")
    _prepare(config, run, tmp_path)
    held = [{prompt for prompts in _hashes(run, axis).values() for prompt in prompts} for axis in axes]
    assert len(held[0]) == len(held[1]) == 10 and not held[0] & held[1]
    record = json.loads(run.splits_path.read_text())["axes"]["two"]
    assert (record["shared_with_other_axes"], record["usable_prompts"]) == (10, 30)


def test_too_few_prompts_names_the_axis(tiny_config):
    config = tiny_config("unused", axes={"honest": {"splits": {"train": 50}}})
    with pytest.raises(DataError, match="axis `honest`"):
        prepare_axes(config, data_dir=None)


def test_the_fingerprint_follows_the_examples(tiny_config, tmp_path):
    runs = [RunDirectory(tmp_path / name) for name in ("a", "b", "c")]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        _prepare(tiny_config("unused", seed=seed), run)
    one, same, other = (data_fingerprint(run, "honest") for run in runs)
    assert one == same != other


def test_prompts_with_rare_line_ends_are_read_back(tiny_config, tmp_path):
    config, run = tiny_config("unused"), RunDirectory(tmp_path / "run")
    rows = [
        {"instruction": f"Prompt {n}:\u2028one\x85two\x0bthree", "input": "", "output": "a\u2029b"} for n in range(40)
    ]
    (tmp_path / "odd.json").write_text(json.dumps(rows))
    config = tiny_config("unused", axes={"helpful": {"source": str(tmp_path / "odd.json")}})
    _prepare(config, run)
    assert read_splits(run, "helpful").train[0].target == "a\u2029b"


@pytest.mark.parametrize("line", ["{}", "[1]", "3", '{"split": "train"', '{"split": "other", "correct": []}'])
def test_a_damaged_line_is_named(tiny_config, tmp_path, line):
    config, run = tiny_config("unused"), RunDirectory(tmp_path)
    _prepare(config, run)
    path = tmp_path / "data" / "honest.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ArtifactError, match=r"honest.jsonl: line 41 is damaged"):
        read_splits(run, "honest")


def test_an_axis_that_was_not_prepared_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="honest.jsonl"):
        read_splits(RunDirectory(tmp_path), "honest")
