"""Sets from the hub, without it: what the library would give is put in its place."""

import pytest

from alignx.config import AxisConfig
from alignx.data.sources import load_axis
from alignx.errors import DataError

PUBLISHED = {
    "alpaca": [{"instruction": "p", "input": "", "output": "a", "text": "p a"}],
    "beavertails": [{"prompt": "p", "response": "a", "category": {}, "is_safe": True}],
    "truthfulqa": [
        {
            "type": "Adversarial",
            "category": "Myths",
            "question": "p",
            "best_answer": "a",
            "correct_answers": ["a", "b"],
            "incorrect_answers": ["c"],
            "source": "none",
        }
    ],
}


@pytest.fixture
def hub(monkeypatch):
    """Lets the hub hold the given rows; returns what it was asked for."""
    asked = []

    def hold(rows):
        def load(name, configuration, *, split, streaming):
            asked.append((name, configuration, split, streaming))
            return iter(rows)

        monkeypatch.setattr("datasets.load_dataset", load)
        return asked

    return hold


@pytest.mark.parametrize(
    ("dataset", "where"),
    [
        ("alpaca", ("tatsu-lab/alpaca", None, "train")),
        ("beavertails", ("PKU-Alignment/BeaverTails", None, "30k_train")),
        ("truthfulqa", ("truthfulqa/truthful_qa", "generation", "validation")),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_source_is_the_published_set(hub, dataset, where, streaming):
    asked = hub(PUBLISHED[dataset])
    data = load_axis("axis", AxisConfig(dataset=dataset, streaming=streaming), data_dir=None, seed=0)
    assert asked == [(*where, streaming)]
    assert [(example.instruction, example.target) for example in data.examples] == [("p", "a")]
    assert data.source == where[0]


def test_a_hub_name_and_a_column_map_read_a_users_set(hub, tmp_path):
    asked = hub([{"q": "p", "a": "b"}])
    config = AxisConfig(dataset="pairs", source="owner/name", columns={"prompt": "q", "response": "a"})
    assert load_axis("axis", config, data_dir=tmp_path, seed=0).examples[0].target == "b"
    assert asked == [("owner/name", None, "train", False)]


def test_a_stream_is_not_read_beyond_what_is_asked_into_memory_and_its_rows_are_counted(hub):
    hub({"prompt": f"p{n}", "response": "a"} for n in range(5000))
    config = AxisConfig(dataset="pairs", source="owner/name", streaming=True, max_examples=20)
    data = load_axis("axis", config, data_dir=None, seed=0)
    assert (len(data.examples), data.n_rows) == (20, 5000)


def test_a_stream_that_breaks_off_is_one_line_that_names_the_set(hub):
    def rows():
        yield {"prompt": "p", "response": "a"}
        raise ConnectionError("reset by peer\nand more")

    hub(rows())
    with pytest.raises(DataError, match=r"owner/name: cannot be fetched from the hub \(reset by peer\)"):
        load_axis("axis", AxisConfig(dataset="pairs", source="owner/name", streaming=True), data_dir=None, seed=0)
