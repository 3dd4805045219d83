"""What the mixture promises (design: Stage 2), on trained runs of all four published architectures."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel

from alignx import AlignX, Dial
from alignx.config import RunConfig
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.load import load_base
from alignx.runs import RunDirectory
from alignx.stage1.experts import dense_updates, shared_task_vector
from alignx.stage2.pipeline import read_mocae

ARCHITECTURES = ("llama", "mistral", "gemma", "deepseek")
AXES = ("helpful", "harmless", "honest")
SLOW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
Finished = Callable[[str], tuple[RunConfig, RunDirectory]]

weights = st.fixed_dictionaries({axis: st.floats(0.05, 20) for axis in AXES})
floors = st.fixed_dictionaries({axis: st.floats(0, 0.33) for axis in AXES})
words = st.text(alphabet="abcdefgh ?\n<|>", max_size=60)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(architecture: str, finished_run: Finished) -> AlignX:
    return AlignX.from_pretrained(finished_run(architecture)[1].root)


def prompts_of(model: AlignX, *lengths: int) -> list[list[int]]:
    draw = random.Random(0)
    size = len(model.base.tokenizer)
    return [[draw.randrange(5, size) for _ in range(length)] for length in lengths]


@SLOW
@given(prompt=words, weights=weights, floors=floors)
def test_weights_keep_the_floors_and_sum_to_one(model: AlignX, prompt: str, weights: dict, floors: dict) -> None:
    pi = model.route(prompt, Dial(weights, floors))[0].pi
    assert all(pi[axis] >= floors[axis] - 1e-12 for axis in AXES)
    assert sum(pi.values()) == pytest.approx(1, abs=1e-9)


@SLOW
@given(prompt=words, weights=weights, axis=st.sampled_from(AXES), factor=st.floats(1, 50))
def test_raising_a_weight_never_lowers_its_share(
    model: AlignX, prompt: str, weights: dict, axis: str, factor: float
) -> None:
    before = model.route(prompt, Dial(weights))[0].pi[axis]
    after = model.route(prompt, Dial({**weights, axis: weights[axis] * factor}))[0].pi[axis]
    assert after >= before - 1e-12


@pytest.mark.parametrize("axis", AXES)
def test_one_expert_alone_is_what_peft_gives(
    architecture: str, model: AlignX, finished_run: Finished, axis: str
) -> None:
    config, run = finished_run(architecture)
    prompts = prompts_of(model, 3, 40, 17)
    ours = model.next_token_logits(prompts, Dial({other: float(other == axis) for other in AXES}))
    base = load_base(config.model)
    shared = shared_task_vector(config, run, base)
    assert shared is not None
    with folded(base.model, dense_updates(shared)), torch.no_grad():
        peft = PeftModel.from_pretrained(base.model, run.adapter_folder(axis))
        theirs = torch.stack([peft(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in prompts])
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_strength_zero_is_the_base_to_the_bit(architecture: str, model: AlignX, finished_run: Finished) -> None:
    prompts = prompts_of(model, 3, 40, 17)
    mixed = model.next_token_logits(prompts, Dial(strength=0))
    among_others = model.next_token_logits(prompts, [Dial(), Dial(strength=0), Dial({"honest": 3})])
    config, run = finished_run(architecture)
    other = AlignX.from_run(config, run, LazyBase(config, run))
    other.close()
    bare = other.next_token_logits(prompts)
    assert torch.equal(mixed, bare) and torch.equal(among_others[1], bare[1])
    assert not torch.equal(mixed, model.next_token_logits(prompts))


def test_rows_of_a_batch_are_what_they_are_alone(model: AlignX) -> None:
    beyond = model.base.context_tokens + 7
    prompts = [[], *prompts_of(model, 1, 9, 60, beyond, 9, model.base.context_tokens)]
    dials = [
        Dial({"honest": 1e9}),
        Dial(),
        Dial({"harmless": 5}),
        Dial(strength=-1),
        Dial(floors={"honest": 0.5}),
        Dial({"helpful": 0}),
        Dial(strength=0),
    ]
    together = model.next_token_logits(prompts, dials)
    for row, (prompt, dial) in enumerate(zip(prompts, dials, strict=True)):
        alone = model.next_token_logits([prompt], dial)[0]
        assert (together[row] - alone).norm() <= 1e-5 * alone.norm(), f"row {row}"


def test_a_prompt_beyond_the_context_keeps_its_end(model: AlignX) -> None:
    prompt = prompts_of(model, model.base.context_tokens + 30)[0]
    cut = model.next_token_logits([prompt[-model.base.context_tokens :]])
    assert torch.equal(model.next_token_logits([prompt]), cut)


def test_permuting_logits_and_dial_permutes_the_weights(architecture: str, finished_run: Finished) -> None:
    mocae = read_mocae(finished_run(architecture)[1])
    order = [2, 0, 1]
    signatures = torch.randn(5, sum(mocae.widths), generator=torch.Generator().manual_seed(0))
    routing = mocae.route(signatures)
    flat = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    floor = torch.tensor([0.1, 0.0, 0.2], dtype=torch.float64)
    one = torch.tensor(1.0)
    pi, scale = mocae.mix(routing, flat, floor, one)
    permuted = replace(routing, mixture_logits=routing.mixture_logits[:, order])
    pi_permuted, scale_permuted = mocae.mix(permuted, flat[order], floor[order], one)
    torch.testing.assert_close(pi_permuted, pi[:, order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scale_permuted, scale, rtol=1e-12, atol=1e-12)


def test_a_loaded_run_gives_the_same_bits(architecture: str, model: AlignX, finished_run: Finished) -> None:
    again = AlignX.from_pretrained(finished_run(architecture)[1].root)
    prompts = prompts_of(model, 3, 40)
    assert torch.equal(again.next_token_logits(prompts), model.next_token_logits(prompts))


# 24 calibration prompts: no p-value lies below 1/25, so g is 0 only with a threshold above that.
SURELY_FOREIGN = (0.05, 0.2)


@pytest.mark.parametrize("fallback", ["prior", "base"])
def test_the_fallback_speaks_where_no_expert_applies(architecture: str, finished_run: Finished, fallback: str) -> None:
    trained = read_mocae(finished_run(architecture)[1])
    mocae = replace(trained, fallback=fallback, foreign_p_values=SURELY_FOREIGN)
    routing = mocae.route(100 * torch.ones(1, sum(mocae.widths)))
    assert routing.known.item() == 0
    weight, floor = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.2, 0.0, 0.0])
    pi, _ = mocae.mix(routing, weight, floor, torch.tensor(1.0))
    prior = [0.25, 0.25, 0.5] if fallback == "prior" else [0.0, 0.0, 0.0]
    wanted = [at + 0.8 * share for at, share in zip([0.2, 0.0, 0.0], prior, strict=True)]
    assert pi[0].tolist() == pytest.approx(wanted, abs=1e-7)
