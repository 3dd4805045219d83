import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from alignx.data.template import TokenisedExample
from alignx.models.packed import can_pack, pack, packed_attention, packed_lengths

EXAMPLES = [
    TokenisedExample([5, 6, 7, 8], [9, 10]),
    TokenisedExample([11], [12]),
    TokenisedExample([13, 14, 15, 16, 17, 18, 19], [20, 21, 22]),
]


def _states(model, examples):
    batch = pack(examples)
    with torch.no_grad(), packed_attention(model), packed_lengths(batch.lengths):
        states = model.get_decoder()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
    return torch.split(states.last_hidden_state[0], batch.lengths)


def test_a_row_holds_every_token_once_with_its_own_position():
    batch = pack(EXAMPLES)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, *range(13, 23)]]
    assert batch.position_ids.tolist() == [[*range(6), *range(2), *range(10)]]
    assert batch.lengths == [6, 2, 10]


def test_targets_are_marked_but_for_a_first_token_that_nothing_predicts():
    assert pack(EXAMPLES).target_mask[0].nonzero()[:, 0].tolist() == [4, 5, 7, 15, 16, 17]
    assert pack([TokenisedExample([], [3, 4])]).target_mask.tolist() == [[False, True]]


def test_packed_equals_alone_on_every_architecture(load_tiny, architecture):
    model = load_tiny(architecture).model
    assert can_pack(model, 96)
    for example, found in zip(EXAMPLES, _states(model, EXAMPLES), strict=True):
        with torch.no_grad():
            alone = model.get_decoder()(
                input_ids=torch.tensor([[*example.prompt_ids, *example.target_ids]]), use_cache=False
            ).last_hidden_state[0]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_a_bf16_base_is_packed_too(load_tiny, architecture):
    """Its rounding is coarser than that of float32, and is no reason to pad."""
    assert can_pack(load_tiny(architecture).model.to(torch.bfloat16), 96)


def test_changing_one_sequence_leaves_the_others_to_the_bit(load_tiny, architecture):
    model = load_tiny(architecture).model
    before = _states(model, EXAMPLES)
    after = _states(model, [EXAMPLES[0], TokenisedExample([200], [201]), EXAMPLES[2]])
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_gradients_do_not_cross_sequences(load_tiny, architecture):
    model = load_tiny(architecture).model
    batch = pack(EXAMPLES)
    embedded = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
    with packed_attention(model), packed_lengths(batch.lengths):
        states = model.get_decoder()(inputs_embeds=embedded, position_ids=batch.position_ids, use_cache=False)
    states.last_hidden_state[0, 6:8].sum().backward()
    touched = embedded.grad[0].abs().sum(dim=1).nonzero()[:, 0].tolist()
    assert touched == [6, 7]


def test_a_window_shorter_than_the_sequences_forbids_packing(load_tiny):
    model = load_tiny("mistral").model  # its window is 128 tokens
    assert can_pack(model, 128)
    assert not can_pack(model, 129)


def test_another_attention_than_the_common_one_forbids_packing(load_tiny):
    model = load_tiny("llama").model
    model.set_attn_implementation("eager")
    assert not can_pack(model, 96)


def test_positions_that_are_not_told_by_ids_forbid_packing():
    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2)).eval()
    assert not can_pack(model, 96)


def test_the_model_attends_as_before_afterwards(load_tiny):
    model = load_tiny("llama").model
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(ids).logits
        can_pack(model, 96)
        _states(model, EXAMPLES)
        assert torch.equal(model(ids).logits, before)
    assert model.config._attn_implementation == "sdpa"


def test_packed_attention_without_lengths_is_refused(load_tiny):
    model = load_tiny("llama").model
    with packed_attention(model), pytest.raises(ValueError, match="packed_lengths"):
        model(torch.tensor([[5, 6, 7]]))
