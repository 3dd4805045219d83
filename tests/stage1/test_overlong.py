import json

import pytest

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.errors import DataError
from alignx.runs import RunDirectory
from alignx.stage1.overlong import fitting_examples
from alignx.stage1.pipeline import run_stage1
from alignx.stage1.schedule import TrainingJob, training_steps

EXAMPLES = [Example("honest", f"What is {n} plus 1?", "so " * 5 * n + "yes.") for n in range(8)]


@pytest.fixture(scope="module")
def base(load_tiny):
    return load_tiny("llama")


def _fit(base, *, instructions=None, examples=EXAMPLES, **settings):
    return fitting_examples("honest", examples, base.template, Stage1Config(**settings), instructions or {})


def test_nothing_is_left_out_of_what_fits(base):
    found = _fit(base)
    assert (found.examples, found.n_dropped, found.n_cut, found.line) == (EXAMPLES, 0, 0, "")


def test_every_target_that_is_trained_on_ends_with_the_end_token(base):
    settings = Stage1Config(max_tokens=64)
    found = _fit(base, max_tokens=64)
    assert 0 < found.n_dropped < len(EXAMPLES)
    job = TrainingJob("honest", found.examples, {}, 0.0, 1e-2, 1, 0)
    for step in training_steps(job, base.template, settings):
        assert all(example.target_ids[-1] == base.template.end_token_id for example in step.examples)


def test_the_limit_is_the_last_length_that_fits(base):
    example = EXAMPLES[3]
    tokens = base.template.encode(example, max_tokens=10_000)
    length = len(tokens.prompt_ids) + len(tokens.target_ids)
    assert _fit(base, examples=[example], max_tokens=length).n_dropped == 0
    with pytest.raises(DataError):
        _fit(base, examples=[example], max_tokens=length - 1)


def test_an_example_is_measured_with_the_instruction_that_it_may_carry(base):
    plain = _fit(base, max_tokens=64)
    assert _fit(base, instructions={"honest": "Be honest. " * 4}, max_tokens=64).n_dropped > plain.n_dropped


def test_cutting_keeps_every_example_and_counts_those_without_end_token(base):
    found = _fit(base, max_tokens=64, overlong="cut")
    assert found.examples == EXAMPLES
    assert found.n_cut == _fit(base, max_tokens=64).n_dropped and found.n_dropped == 0
    assert "teach no end token" in found.line


def test_an_axis_whose_every_example_is_too_long_names_the_settings(base):
    with pytest.raises(DataError, match="`honest`: all 8 training examples exceed `stage1.max_tokens: 16`") as caught:
        _fit(base, max_tokens=16)
    assert "stage1.overlong: cut" in str(caught.value)


def test_what_was_left_out_is_kept_beside_the_adapter_and_changing_the_rule_trains_again(
    tiny_config, tiny_models, tmp_path, capsys
):
    settings = {"max_tokens": 42, "shared_expert": False, "injection_rate": 0.0}
    config = tiny_config(tiny_models["llama"], stage1=settings)
    config = config.model_copy(update={"axes": {"helpful": config.axes["helpful"]}})
    run = RunDirectory(tmp_path)
    run_stage1(config, run)
    record = json.loads((tmp_path / "stage1/helpful/training.json").read_text())
    assert record["examples"] + record["dropped"]["overlong"] == config.axes["helpful"].splits.train
    assert record["dropped"]["overlong"] > 0 and record["without_end_token"] == 0
    assert f"helpful: left out {record['dropped']['overlong']} examples longer than" in capsys.readouterr().err
    cut = config.model_copy(update={"stage1": config.stage1.model_copy(update={"overlong": "cut"})})
    run_stage1(cut, run)
    record = json.loads((tmp_path / "stage1/helpful/training.json").read_text())
    assert record["without_end_token"] > 0 and record["dropped"]["overlong"] == 0
