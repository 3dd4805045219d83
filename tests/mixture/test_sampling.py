"""Options of `generate`: what passes, what asks for sampling, what is refused by name."""

import math

import pytest

from alignx.errors import ConfigError
from alignx.mixture.sampling import checked_sampling


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"do_sample": False}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0, "do_sample": True, "top_p": 0.9}, {"do_sample": False}),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7}),
        ({"top_p": 0.9, "top_k": None}, {"do_sample": True, "top_p": 0.9}),
        ({"do_sample": True}, {"do_sample": True}),
        ({"num_beams": 3, "repetition_penalty": 1.1}, {"do_sample": False, "num_beams": 3, "repetition_penalty": 1.1}),
        ({"num_return_sequences": 1}, {"do_sample": False}),
    ],
)
def test_sampling_is_on_when_it_is_asked_for(options, expected) -> None:
    assert checked_sampling(options, max_new_tokens=8) == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temprature": 1}, "temprature: no option of `generate`; did you mean `temperature`"),
        ({"xyzzy": 1}, "xyzzy: no option"),
        ({"temperature": -1}, "temperature -1: must be a finite number"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"temperature": "hot"}, "temperature 'hot'"),
        ({"top_p": 0}, r"top_p 0: must be in \(0, 1\]"),
        ({"top_k": 1.5}, "top_k 1.5: must be a whole number"),
        ({"num_beams": 0}, "num_beams 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty 0.0"),
        ({"do_sample": "yes"}, "do_sample 'yes': must be True or False"),
        ({"do_sample": False, "temperature": 0.5}, "temperature 0.5: has no effect with do_sample False"),
        ({"min_new_tokens": 9}, "min_new_tokens 9: more than max_new_tokens 8"),
        ({"max_length": 9}, "max_length: give max_new_tokens"),
        ({"streamer": object()}, r"streamer: use stream\(\)"),
        ({"eos_token_id": 3}, "eos_token_id"),
        ({"num_return_sequences": 2}, "repeat the prompt"),
    ],
)
def test_a_wrong_option_is_named(options, says) -> None:
    with pytest.raises(ConfigError, match=says):
        checked_sampling(options, max_new_tokens=8)
