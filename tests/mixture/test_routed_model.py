"""The aligned model as a Transformers model."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, pipeline

from alignx import AlignX, Dial
from alignx.config import RunConfig
from alignx.errors import ConfigError, DialError
from alignx.runs import RunDirectory

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]
PROMPTS = [[5, 9, 40, 7, 300], [8, 8, 90, 41, 77, 200, 6]]
WEIGHTS = {"honest": 4.0}


@pytest.fixture(scope="module", params=["llama", "gemma"])
def aligned(request: pytest.FixtureRequest, finished_run: Finished) -> AlignX:
    return AlignX.from_pretrained(finished_run(request.param)[1].root)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-5 * expected.norm())


@torch.no_grad()
def test_a_forward_pass_gives_the_runtimes_logits(aligned: AlignX) -> None:
    model = aligned.as_transformers(axis_weights=WEIGHTS)
    assert isinstance(model, PreTrainedModel) and model.config is aligned.base.model.config
    expected = aligned.next_token_logits(PROMPTS, Dial(WEIGHTS))
    for row, prompt in enumerate(PROMPTS):
        assert close(model(torch.tensor([prompt])).logits[0, -1], expected[row])
    padded = torch.tensor([[2, 2, *PROMPTS[0]], PROMPTS[1]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    assert close(model(padded, attention_mask=mask, position_ids=positions).logits[:, -1], expected)
    right = model(torch.tensor([[*PROMPTS[0], 2, 2], PROMPTS[1]])).logits  # as harnesses pad, without a mask
    assert close(right[0, 4], expected[0]) and close(right[1, -1], expected[1])


@torch.no_grad()
def test_what_a_cache_continues_keeps_its_weights(aligned: AlignX) -> None:
    model = aligned.as_transformers(axis_weights=WEIGHTS)
    first = model(torch.tensor([PROMPTS[0]]), use_cache=True)
    aligned.next_token_logits(PROMPTS, Dial({"harmless": 50}))  # another call between
    _, pi, scale = aligned._mix([PROMPTS[0]], [Dial(WEIGHTS)])
    with aligned.gated.using(aligned.engine.gates(pi, scale)):
        expected = aligned.base.model(torch.tensor([[*PROMPTS[0], 30, 31]])).logits[0, -1]
    step = model(torch.tensor([[30]]), past_key_values=first.past_key_values)
    assert close(model(torch.tensor([[31]]), past_key_values=step.past_key_values).logits[0, -1], expected)


def test_its_generate_is_the_runtimes(aligned: AlignX) -> None:
    model = aligned.as_transformers(axis_weights=WEIGHTS)
    ids = aligned.base.template.encode_prompt("Why?")
    end = aligned.base.template.end_token_id
    found = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=end)[0, len(ids) :]
    answer = aligned.generate("Why?", axis_weights=WEIGHTS, max_new_tokens=8)[0]
    assert aligned._text(found.tolist())[0] == answer.text
    beams = model.generate(torch.tensor([ids]), max_new_tokens=6, num_beams=3, do_sample=False, eos_token_id=end)
    theirs = aligned.generate("Why?", axis_weights=WEIGHTS, max_new_tokens=6, num_beams=3)[0]
    assert aligned._text(beams[0, len(ids) :].tolist())[0] == theirs.text


def test_a_pipeline_takes_it(aligned: AlignX) -> None:
    model = aligned.as_transformers(axis_weights=WEIGHTS)
    pipe = pipeline("text-generation", model=model, tokenizer=model.tokenizer)
    text = "Write a line about the apple."
    found = pipe(text, max_new_tokens=6, do_sample=False, return_tensors=True)[0]
    ids = model.tokenizer(text)["input_ids"]
    expected = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
    assert found["generated_token_ids"][-len(expected) :] == expected.tolist()


def test_what_it_cannot_do_says_so(aligned: AlignX, tmp_path) -> None:
    model = aligned.as_transformers()
    with pytest.raises(ConfigError, match="save_pretrained"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="routes by tokens"):
        model(inputs_embeds=torch.zeros(1, 2, 32))
    with torch.no_grad(), pytest.raises(ConfigError, match="was not made by this model"):
        foreign = aligned.base.model(torch.tensor([PROMPTS[0]]), use_cache=True).past_key_values
        model(torch.tensor([[3]]), past_key_values=foreign)
    with pytest.raises(DialError, match="did you mean `honest`"):
        aligned.as_transformers(axis_weights={"honets": 2})
