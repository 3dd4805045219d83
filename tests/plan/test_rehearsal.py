from pathlib import Path

import pytest

from alignx.plan.rehearsal import Pass, answering_bytes, mixture_bytes, training_bytes
from alignx.plan.shapes import read_config


def test_a_pass_takes_bytes_in_proportion_to_its_tokens(tiny_models: dict[str, Path]) -> None:
    config = read_config(str(tiny_models["llama"]))
    one, two, three = (
        training_bytes(config, "float32", "lora", 4, "all-linear", Pass(64 * rows, 32 * rows, rows, False))
        for rows in (1, 2, 3)
    )
    assert 0 < one < two < three
    assert three - two == pytest.approx(two - one, rel=0.05)


def test_two_depths_give_what_the_whole_model_takes(tiny_models: dict[str, Path]) -> None:
    config = read_config(str(tiny_models["llama"]))
    work = Pass(128, 64, 2, False)
    at = []
    for layers in (2, 4, 6):
        config.num_hidden_layers = layers
        at.append(training_bytes(config, "float32", "lora", 4, "all-linear", work))
    assert at[2] - at[1] == at[1] - at[0]


def test_every_kind_of_step_runs_on_every_architecture(tiny_models: dict[str, Path], architecture: str) -> None:
    config = read_config(str(tiny_models[architecture]))
    work = Pass(64, 32, 2, True)
    lora = training_bytes(config, "float32", "lora", 4, "all-linear", work)
    full = training_bytes(config, "float32", "full", 4, "all-linear", work)
    mixed = mixture_bytes(config, "float32", 4, 3, "all-linear", work)
    answered = answering_bytes(config, "float32", 4, 3, "all-linear", Pass(64, 2, 2, False))
    assert answered < min(lora, mixed)
    assert full > 0
