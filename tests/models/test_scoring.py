import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from alignx.data.batches import pad_batch
from alignx.data.template import TokenisedExample
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.models.low_rank import LowRankUpdate
from alignx.models.scoring import PromptAnswers, answer_log_probs, mean_target_nats

ITEMS = [
    PromptAnswers([5, 6, 7], [[8], [9, 10, 11, 12], [13, 14]]),
    PromptAnswers([40], [[41, 42]]),
    PromptAnswers(list(range(20, 60)), [list(range(60, 70)), [71], [72, 73], [72, 74]]),
    PromptAnswers([100, 101, 102, 103, 104], [[105, 106, 107]]),
]


def _one_by_one(model, item):
    """Every answer scored by a plain pass over prompt + answer."""
    scores = []
    for answer in item.answers:
        with torch.no_grad():
            log_probs = model(torch.tensor([item.prompt_ids + answer])).logits[0].log_softmax(dim=-1)
        start = len(item.prompt_ids) - 1
        scores.append(sum(float(log_probs[start + place, token]) for place, token in enumerate(answer)))
    return scores


def _assert_equal(found, expected):
    assert [len(row) for row in found] == [len(row) for row in expected]
    assert sum(found, []) == pytest.approx(sum(expected, []), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_packed_scores_equal_a_pass_an_answer(load_tiny, architecture, batch_size):
    base = load_tiny(architecture)
    found = answer_log_probs(base, ITEMS, batch_size=batch_size)
    _assert_equal(found, [_one_by_one(base.model, item) for item in ITEMS])


def test_every_item_has_its_own_weights(load_tiny):
    base = load_tiny("llama")
    generator = torch.Generator().manual_seed(0)
    updates = {
        name: LowRankUpdate(
            torch.randn(2, linear.in_features, generator=generator),
            torch.randn(linear.out_features, 2, generator=generator),
            0.1,
        )
        for name, linear in adapted_modules(base.model, "all-linear").items()
    }
    weights = torch.tensor([[1.0], [-0.5], [0.0], [2.0]])
    with GatedModel(base.model, {"expert": updates}) as gated:
        found = answer_log_probs(base, ITEMS, gated=gated, weights=weights, batch_size=3)
        expected = []
        for item, row in zip(ITEMS, weights, strict=True):
            with gated.using(row[None]):
                expected.append(_one_by_one(base.model, item))
    _assert_equal(found, expected)
    assert found[0] != answer_log_probs(base, ITEMS[:1])[0]


def test_a_sliding_window_is_kept(load_tiny):
    """A model that sees 8 tokens back must not see further because answers are packed."""
    base = load_tiny("mistral")
    config = MistralConfig.from_dict({**base.model.config.to_dict(), "sliding_window": 8})
    narrow = MistralForCausalLM(config).eval()
    narrow.load_state_dict(base.model.state_dict())
    found = answer_log_probs(type(base)(narrow, base.tokenizer, base.template, base.source), ITEMS)
    _assert_equal(found, [_one_by_one(narrow, item) for item in ITEMS])


def test_mean_nats_are_taken_over_each_rows_own_target(load_tiny, architecture):
    base = load_tiny(architecture)
    examples = [TokenisedExample(item.prompt_ids, item.answers[0]) for item in ITEMS]
    with torch.no_grad():
        found = mean_target_nats(base.model, pad_batch(examples, [2, 0, 3, 1], base.pad_token_id))
    expected = [-_one_by_one(base.model, ITEMS[row])[0] / len(ITEMS[row].answers[0]) for row in (2, 0, 3, 1)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
