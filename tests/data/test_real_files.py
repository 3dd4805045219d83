"""The published files, where ALIGNX_DATA_DIR names their folder (docs/data.md says where they come from)."""

import os
from pathlib import Path

import pytest

from alignx.config import RunConfig, load_config
from alignx.data.example import normalise_prompt
from alignx.data.files import read_rows
from alignx.data.prepare import prepare_axes
from alignx.data.splits import SPLITS

FOLDER = os.environ.get("ALIGNX_DATA_DIR", "")
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER, reason="set ALIGNX_DATA_DIR to the folder of the published files"),
]


@pytest.fixture(scope="module")
def prepared():
    config = load_config(Path(__file__).parents[2] / "configs" / "small.yaml")
    return prepare_axes(config, data_dir=Path(FOLDER))


def test_every_row_of_the_files_is_a_kept_answer_or_is_counted_as_dropped(prepared):
    for axis in prepared.values():
        (part,) = axis.record["sets"]
        path = Path(FOLDER) / part["source"]
        assert part["rows_read"] == part["rows_in_source"] == len(read_rows(path))
    (safe,) = prepared["harmless"].record["sets"]
    labels = [row["is_safe"] for row in read_rows(Path(FOLDER) / safe["source"])]
    assert safe["answers"] <= sum(labels)


def test_no_prompt_of_the_files_is_in_two_splits(prepared):
    prompts = [
        normalise_prompt(example.instruction)
        for axis in prepared.values()
        for split in SPLITS
        for example in axis.splits[split]
    ]
    assert len(set(prompts)) == len(prompts)


def test_every_truthfulqa_question_has_its_multiple_choice_answers(prepared):
    examples = [example for split in SPLITS for example in prepared["honest"].splits[split]]
    assert all(len(example.mc1) > 1 and example.correct and example.incorrect for example in examples)


def test_two_sets_at_a_weight_make_one_axis(prepared):
    sets = [
        {"dataset": "beavertails", "source": "beavertails/30k_test.jsonl.gz", "weight": 2},
        {"dataset": "beavertails", "source": "beavertails/pku_safe_rlhf_qa.jsonl", "weight": 1},
    ]
    splits = {"train": 300, "mix": 60, "calibration": 60, "test": 60}
    config = RunConfig.model_validate({"axes": {"harmless": {"sources": sets, "splits": splits}}})
    first, second = prepare_axes(config, data_dir=Path(FOLDER))["harmless"].record["sets"]
    assert (first["used"]["train"], second["used"]["train"]) == (200, 100)
    assert second["dropped"]["both_labels"] > 0
