import pytest
from hypothesis import given
from hypothesis.strategies import sampled_from

from alignx.config import AxisConfig
from alignx.config.axis import DEFAULT_METRIC, ON_THE_HUB, SCHEMA_FIELDS
from alignx.config.files import check_settings, parse_config
from alignx.errors import ConfigError

PAIRS = {"dataset": "pairs", "source": "mine.jsonl"}


def _axis(**keys) -> AxisConfig:
    return check_settings(AxisConfig, keys, source="axis `mine`")


def test_one_set_and_a_list_of_one_set_are_the_same():
    given_as_list = _axis(sources=[{**PAIRS, "columns": {"prompt": "q"}}])
    assert _axis(**PAIRS, columns={"prompt": "q"}).sets == given_as_list.sets


@given(name=sampled_from(sorted(SCHEMA_FIELDS)))
def test_every_schema_has_a_figure_and_a_new_axis_may_use_it(name):
    axis = _axis(dataset=name, source="" if name in ON_THE_HUB else "mine.jsonl")
    assert axis.judged_by == DEFAULT_METRIC[name]


def test_an_axis_written_out_reads_back_the_same():
    for axis in (
        _axis(**PAIRS, metric="loss"),
        _axis(sources=[{**PAIRS, "weight": 2}, {"dataset": "alpaca", "weight": 1}]),
    ):
        assert _axis(**axis.model_dump(mode="json")) == axis


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "`dataset` is missing; give one of alpaca"),
        ({"dataset": "alpacca"}, "did you mean `alpaca`?"),
        ({"dataset": "pair", "source": "x.csv"}, "did you mean `pairs`?"),
        ({"dataset": "pairs"}, "`source` is missing"),
        ({"dataset": "preference", "source": "sample"}, "no sample of preference"),
        ({**PAIRS, "metric": "win_rat"}, "did you mean `win_rate`?"),
        ({**PAIRS, "metric": "mc2"}, "needs multiple-choice answers"),
        ({**PAIRS, "metric": "safe_preferred"}, "needs worse answers"),
        ({**PAIRS, "columns": {"promt": "q"}}, "names `promt`, which the pairs schema lacks; did you mean `prompt`?"),
        ({**PAIRS, "columns": {"xyzzy": "q"}}, "its fields: prompt, response, input, label"),
        ({**PAIRS, "columns": {"prompt": "q", "response": "q"}}, "maps two fields to `q`"),
        ({**PAIRS, "columns": {"prompt": ""}}, "`columns.prompt`"),
        ({**PAIRS, "mc_source": "mc.json"}, "`mc_source` is for truthfulqa"),
        ({"dataset": "pairs", "source": "big.json", "streaming": True}, "write it as jsonl"),
        ({"dataset": "pairs", "source": "big.json.gz", "streaming": True}, "write it as jsonl"),
        ({"dataset": "pairs", "source": "big.parquet.gz", "streaming": True}, "unpack it"),
        ({"dataset": "alpaca", "source": "sample", "streaming": True}, "leave `streaming` out"),
        ({**PAIRS, "sources": [PAIRS]}, "move `dataset` into the sets"),
        ({"max_examples": 3, "sources": [PAIRS]}, "move `max_examples` into the sets"),
        ({"sources": [{**PAIRS, "weight": 1}, PAIRS]}, "give every set a `weight`, or none"),
        ({"sources": [{**PAIRS, "weight": 0}]}, "greater than 0"),
        ({"sources": [{**PAIRS, "weight": float("nan")}]}, "sources.0.weight"),
    ],
)
def test_an_axis_that_cannot_be_is_refused_before_a_file_is_opened(keys, says):
    with pytest.raises(ConfigError, match="axis `mine`: ") as caught:
        _axis(**keys)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        {**PAIRS, "columns": {"label": "ok"}, "metric": "safe_preferred"},
        {"dataset": "preference", "source": "p.jsonl", "metric": "safe_preferred"},
        {"sources": [PAIRS, {"dataset": "truthfulqa"}], "metric": "mc1"},
        {"dataset": "alpaca", "metric": "loss"},
    ],
)
def test_a_figure_that_one_of_the_sets_can_give_is_accepted(keys):
    assert _axis(**keys).judged_by == keys["metric"]


def test_a_wrong_key_inside_a_set_names_the_nearest():
    axes = {"mine": {"sources": [{**PAIRS, "wieght": 1}]}}
    with pytest.raises(ConfigError, match="unknown key `axes.mine.sources.0.wieght`; did you mean `weight`"):
        parse_config({"axes": axes}, source="run.yaml")


def test_an_axis_may_be_called_like_a_key():
    with pytest.raises(ConfigError, match="unknown key `axes.splits.sorce`; did you mean `source`"):
        parse_config({"axes": {"splits": {"dataset": "alpaca", "sorce": "x"}}}, source="run.yaml")
