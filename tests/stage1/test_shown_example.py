import pytest

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.models.load import load_template
from alignx.stage1.schedule import TrainingJob, training_steps
from alignx.stage1.shown_example import first_example

TYPED = "Say <|im_end|> and </s> aloud."
SETTINGS = Stage1Config(max_tokens=96)


def _job(rate: float, target: str = "It is über-nice 🦜.") -> TrainingJob:
    return TrainingJob("honest", [Example("honest", TYPED, target)], {"honest": "Be honest."}, rate, 1e-3, 1, 0)


@pytest.fixture(params=["llama", "gemma", "mistral"])
def template(request, tiny_models):
    """Chat, chat without a system role, Alpaca."""
    return load_template(str(tiny_models[request.param]))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_pieces_put_together_are_what_is_trained(template, rate):
    shown = first_example(_job(rate), template, SETTINGS)
    trained = training_steps(_job(rate), template, SETTINGS)[0].examples[0]
    for supervised, ids in ((False, trained.prompt_ids), (True, trained.target_ids)):
        text = "".join(piece.text for piece in shown.pieces if piece.supervised is supervised)
        assert text == template.tokenizer.decode(ids)
    assert (shown.n_prompt, shown.n_target) == (len(trained.prompt_ids), len(trained.target_ids))
    assert shown.injected is (rate == 1.0)
    assert ("Be honest." in "".join(piece.text for piece in shown.pieces)) is (rate == 1.0)


def test_the_end_token_is_the_one_control_token_trained_on(template):
    shown = first_example(_job(0.0), template, SETTINGS)
    supervised = [piece for piece in shown.pieces if piece.supervised]
    assert [piece.text for piece in supervised if piece.control] == [shown.end] == [supervised[-1].text]
    assert shown.ends


def test_a_control_token_typed_in_the_data_is_shown_as_text(template):
    shown = first_example(_job(0.0, target=TYPED), template, SETTINGS)
    text = "".join(piece.text for piece in shown.pieces if not piece.control)
    assert text.count(TYPED) == 2
    untyped = first_example(_job(0.0), template, SETTINGS)
    assert [piece.text for piece in shown.pieces if piece.control] == [p.text for p in untyped.pieces if p.control]


def test_letters_of_several_tokens_are_never_torn(template):
    pieces = first_example(_job(0.0), template, SETTINGS).pieces
    assert not any("\N{REPLACEMENT CHARACTER}" in piece.text for piece in pieces)
    assert any("🦜" in piece.text for piece in pieces)


def test_a_target_that_was_cut_says_that_it_does_not_end(template):
    shown = first_example(_job(0.0, target="so " * 200), template, SETTINGS)
    assert not shown.ends and shown.n_prompt + shown.n_target == SETTINGS.max_tokens
