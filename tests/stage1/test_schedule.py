import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.data.template import TokenisedExample
from alignx.stage1.loop import learning_rate_at
from alignx.stage1.schedule import TrainingJob, TrainingStep, micro_batches, training_steps

SETTINGS = Stage1Config(batch_size=4, max_tokens=96)
EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * n}yes.") for n in range(12)]


def _job(**changed) -> TrainingJob:
    fields = {"injection_rate": 0.5, "learning_rate": 1e-2, "epochs": 1, "seed": 0, **changed}
    return TrainingJob("honest", EXAMPLES, {"honest": "Be honest."}, **fields)


@pytest.fixture(scope="module")
def base(load_tiny):
    return load_tiny("llama")


def test_every_example_is_seen_once_an_epoch(base):
    steps = training_steps(_job(epochs=3, injection_rate=0.0), base.template, SETTINGS)
    assert [len(step.rows) for step in steps] == [4] * 9
    rows = [row for step in steps for row in step.rows]
    assert all(sorted(rows[start : start + 12]) == list(range(12)) for start in (0, 12, 24))
    assert rows[:12] != rows[12:24]


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 12)])
def test_the_instruction_is_injected_at_its_rate(base, rate, expected):
    steps = training_steps(_job(injection_rate=rate), base.template, SETTINGS)
    texts = [base.tokenizer.decode(example.prompt_ids) for step in steps for example in step.examples]
    assert sum("Be honest." in text for text in texts) == expected


def test_the_last_step_of_an_epoch_has_what_is_left(base):
    steps = training_steps(_job(), base.template, SETTINGS.model_copy(update={"batch_size": 5}))
    assert [len(step.rows) for step in steps] == [5, 5, 2]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    cap=st.integers(1, 100),
    world=st.integers(1, 4),
)
def test_passes_hold_every_example_once_and_no_more_tokens_than_allowed(lengths, cap, world):
    step = TrainingStep(list(range(len(lengths))), [TokenisedExample([1] * length, []) for length in lengths])
    passes = micro_batches(step, cap, world)
    assert len(passes) == world and len({len(found) for found in passes}) == 1
    numbers = [number for found in passes for rows in found for number in rows]
    assert sorted(numbers) == list(range(len(lengths)))
    assert all(len(rows) == 1 or sum(lengths[n] for n in rows) <= cap for found in passes for rows in found)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20), world=st.integers(1, 4))
def test_processes_share_the_tokens_evenly(lengths, world):
    step = TrainingStep(list(range(len(lengths))), [TokenisedExample([1] * length, []) for length in lengths])
    loads = [sum(lengths[n] for rows in found for n in rows) for found in micro_batches(step, 10**6, world)]
    assert max(loads) - min(loads) <= max(lengths)


def test_the_rate_warms_up_and_comes_down_to_nearly_nothing():
    rates = [learning_rate_at(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] > 0
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.001
