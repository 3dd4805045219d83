import pytest
import torch

from alignx.stage1.activations import depth_layers, iter_prompt_states, last_prompt_states


@pytest.mark.parametrize(
    ("depths", "n_layers", "layers"),
    [((0.125, 0.25, 0.375, 0.5), 32, [3, 7, 11, 15]), ((0.125, 0.25, 0.375, 0.5), 4, [0, 1]), ((1.0,), 4, [3])],
)
def test_depths_are_shares_of_the_layers(depths, n_layers, layers):
    assert depth_layers(depths, n_layers) == layers


def test_states_are_those_of_a_whole_pass_over_each_prompt_alone(load_tiny, architecture):
    base = load_tiny(architecture)
    prompts = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15]]
    states = last_prompt_states(base, prompts, [0, 2], batch_size=2)
    for prompt, found in zip(prompts, states, strict=True):
        with torch.no_grad():
            hidden = base.model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        # hidden_states[0] is the embedding, so layer n's output is entry n + 1.
        torch.testing.assert_close(found, torch.stack([hidden[1][0, -1], hidden[3][0, -1]]), rtol=1e-4, atol=1e-5)


def test_a_prompt_longer_than_the_context_keeps_its_end(load_tiny):
    base = load_tiny("llama")
    long = [5 + number % 200 for number in range(300)]
    whole, cut = last_prompt_states(base, [long, long[-base.context_tokens :]], [1])
    assert torch.equal(whole, cut)


def test_no_hook_stays_behind(load_tiny):
    base = load_tiny("llama")
    last_prompt_states(base, [[5, 6]], [0, 1])
    assert not any(module._forward_hooks for module in base.model.modules())


def test_states_come_a_batch_at_a_time(load_tiny):
    base = load_tiny("llama")
    prompts = [[5 + place for place in range(length)] for length in (3, 1, 4, 1, 5)]
    whole = last_prompt_states(base, prompts, [0, 1])
    seen = []
    for rows, states in iter_prompt_states(base, prompts, [0, 1], batch_size=2):
        assert len(rows) <= 2 and states.shape == (len(rows), 2, 32)
        torch.testing.assert_close(states, whole[rows], rtol=1e-5, atol=1e-6)
        seen += rows
    assert sorted(seen) == list(range(5))


def test_reading_states_leaves_gradients_to_its_caller(load_tiny):
    """A generator must not hold torch's gradient switch while its caller works between two batches."""
    batches = iter_prompt_states(load_tiny("llama"), [[5], [6]], [0], batch_size=1)
    next(batches)
    assert torch.is_grad_enabled()
