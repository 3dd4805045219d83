import json
import shutil
from pathlib import Path

import pytest

from alignx.config import AxisConfig, SplitSizes, load_config
from alignx.data.files import read_rows
from alignx.data.prepare import prepare_axes
from alignx.data.sources import SAMPLE_FOLDER, load_axis, load_test_folder
from alignx.data.splits import SPLITS
from alignx.errors import DataError

DATASETS = {"alpaca": "alpaca.json", "beavertails": "beavertails.jsonl", "truthfulqa": "truthfulqa.csv"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_sample_has_enough_prompts_on_every_axis(dataset):
    data = load_axis("axis", AxisConfig(dataset=dataset, source="sample"), data_dir=None, seed=0)
    assert len(data.examples) >= 120
    assert len({example.prompt_hash for example in data.examples}) == len(data.examples)
    assert data.source == "sample" and data.licence == "Apache-2.0"


@pytest.mark.parametrize("dataset", ["beavertails", "truthfulqa"])
def test_the_sample_has_good_and_bad_answers(dataset):
    data = load_axis("axis", AxisConfig(dataset=dataset, source="sample"), data_dir=None, seed=0)
    assert all(example.correct and example.incorrect for example in data.examples)
    assert all(not set(example.correct) & set(example.incorrect) for example in data.examples)


def test_the_sample_axes_share_no_prompt():
    prompts = [
        example.prompt_hash
        for dataset in DATASETS
        for example in load_axis("a", AxisConfig(dataset=dataset, source="sample"), data_dir=None, seed=0).examples
    ]
    assert len(set(prompts)) == len(prompts)


def test_the_foreign_development_set_holds_prompts():
    rows = read_rows(SAMPLE_FOLDER / "foreign_dev.jsonl")
    assert len(rows) >= 32 and all(row["prompt"].strip() for row in rows)


@pytest.mark.parametrize(("dataset", "name"), DATASETS.items())
def test_a_relative_source_lies_in_the_data_folder(tiny_data, dataset, name):
    data = load_axis("axis", AxisConfig(dataset=dataset, source=name), data_dir=tiny_data, seed=0)
    assert len(data.examples) == 40
    assert data.source == name


def test_max_examples_draws_rows_by_seed(tiny_data):
    config = AxisConfig(dataset="alpaca", source="alpaca.json", max_examples=10)
    one, again, other = (load_axis("a", config, data_dir=tiny_data, seed=seed) for seed in (0, 0, 1))
    assert one == again and len(one.examples) == 10 and one.n_rows == 40
    assert {e.instruction for e in one.examples} != {e.instruction for e in other.examples}


def test_an_mc_source_is_read(tiny_data, tmp_path):
    shutil.copy(tiny_data / "truthfulqa.csv", tmp_path)
    question = "Does the apple bring luck?"
    row = {"question": question, "mc1_targets": {"n": 0, "y": 1}, "mc2_targets": {"y": 1, "n": 0}}
    (tmp_path / "mc_task.json").write_text(json.dumps([row]))
    config = AxisConfig(dataset="truthfulqa", source="truthfulqa.csv", mc_source="mc_task.json")
    examples = load_axis("a", config, data_dir=tmp_path, seed=0).examples
    assert {example.instruction: example.mc1 for example in examples}[question] == ("y", "n")


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match="absent.json: no such data file"):
        load_axis("a", AxisConfig(dataset="alpaca", source="absent.json"), data_dir=tmp_path, seed=0)


def test_test_data_is_found_by_name_with_or_without_gz_and_else_by_columns(tiny_data, tmp_path):
    shutil.copy(tiny_data / "alpaca.json", tmp_path / "renamed.json")
    for source in ("alpaca.json", "alpaca.json.gz"):
        assert len(load_test_folder("a", AxisConfig(dataset="alpaca", source=source), tiny_data)) == 40
    assert len(load_test_folder("a", AxisConfig(dataset="alpaca", source="alpaca.json"), tmp_path)) == 40


def test_test_data_without_the_schema_names_its_columns(tmp_path):
    (tmp_path / "other.json").write_text('[{"a": 1}]')
    with pytest.raises(DataError, match="columns prompt, response, is_safe"):
        load_test_folder("harmless", AxisConfig(dataset="beavertails", source="b.jsonl"), tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_test_folder("harmless", AxisConfig(dataset="beavertails"), tmp_path / "absent")


def test_split_defaults_fit_truthfulqa():
    sizes = SplitSizes()
    assert (sizes.train, sizes.mix, sizes.calibration, sizes.test) == (360, 65, 60, 140)


def test_the_own_axis_config_runs_on_the_sample_alone():
    config = load_config(Path(__file__).parents[2] / "configs" / "own-axis.yaml")
    prepared = prepare_axes(config, data_dir=None)
    assert list(prepared) == ["helpful", "harmless", "concise", "honest"]
    (sample,) = prepared["concise"].record["sets"]
    assert sample["prompts"] >= 100 and sample["dropped"] == {}
    assert all(axis.record["shared_with_other_axes"] == 0 for axis in prepared.values())
    answers = [example.target for split in SPLITS for example in prepared["concise"].splits[split]]
    assert all(". " not in answer and len(answer) <= 120 for answer in answers)


def test_test_data_of_several_sets_are_found_by_their_own_columns_and_joined(tmp_path):
    (tmp_path / "one.csv").write_text("q,a\nfirst,x\nsecond,y\n")
    (tmp_path / "two.csv").write_text("q,good,bad\nSECOND,z,w\nthird,z,w\n")
    config = AxisConfig(
        sources=[
            {"dataset": "pairs", "source": "train.csv", "columns": {"prompt": "q", "response": "a"}},
            {
                "dataset": "preference",
                "source": "more.csv",
                "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"},
            },
        ]
    )
    examples = load_test_folder("mine", config, tmp_path)
    assert [(example.instruction, example.target) for example in examples] == [
        ("first", "x"),
        ("second", "y"),
        ("third", "z"),
    ]
