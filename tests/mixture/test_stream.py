"""Answers piece by piece."""

from collections.abc import Callable

import pytest

from alignx import AlignX, Dial
from alignx.config import RunConfig
from alignx.errors import ConfigError, DialError
from alignx.models.fingerprint import model_sha256
from alignx.runs import RunDirectory

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]


@pytest.fixture(scope="module", params=["always", "never"])
def model(request: pytest.FixtureRequest, finished_run: Finished) -> AlignX:
    return AlignX.from_pretrained(finished_run("llama")[1].root, folding=request.param)


def test_the_pieces_are_the_answer(model: AlignX) -> None:
    for prompt, dial in (
        ("Write a line about the apple.", Dial({"honest": 5})),
        ("Why?", Dial(strength=2)),
        ("", None),
    ):
        whole = model.generate(prompt, dial, max_new_tokens=16)[0]
        stream = model.stream(prompt, dial, max_new_tokens=16)
        assert "".join(stream) == whole.text
        assert stream.answer == whole


def test_a_stream_comes_in_several_pieces(model: AlignX) -> None:
    assert len(list(model.stream("Write a line about the apple.", max_new_tokens=24, min_new_tokens=24))) > 2


def test_closing_early_leaves_the_base_as_it_was(model: AlignX) -> None:
    before = model_sha256(model.base.model)
    with model.stream("Why?", max_new_tokens=60, min_new_tokens=60) as stream:
        next(stream)
    assert model_sha256(model.base.model) == before
    assert list(stream) == []
    assert model.generate("Why?", max_new_tokens=4)[0].text  # nobody holds the base


def test_an_error_while_generating_is_raised_to_the_reader(model: AlignX, monkeypatch) -> None:
    def broken(*arguments, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model.engine, "generate", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        list(model.stream("Why?"))


def test_wrong_arguments_are_refused_before_anything_runs(model: AlignX) -> None:
    with pytest.raises(DialError, match="harmles"):
        model.stream("Why?", axis_weights={"harmles": 2})
    with pytest.raises(ConfigError, match="max_new_tokens 0"):
        model.stream("Why?", max_new_tokens=0)
    with pytest.raises(ConfigError, match="num_beams 2"):
        model.stream("Why?", num_beams=2)
    with pytest.raises(ConfigError, match="one prompt"):
        model.stream(["Why?", "How?"])  # type: ignore[arg-type]
