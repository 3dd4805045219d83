"""States of answers that share a prompt are those that they have alone."""

from collections.abc import Callable

import pytest
import torch

from alignx.models.answer_batch import PromptAnswers
from alignx.models.answer_states import answer_states
from alignx.models.load import BaseModel


@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_answers_of_a_row_do_not_see_each_other(architecture: str, load_tiny: Callable[[str], BaseModel]) -> None:
    base = load_tiny(architecture)
    items = [PromptAnswers([5, 6, 7], [[8, 9], [10], [11, 12, 13]]), PromptAnswers([20], [[21, 22]])]
    found = answer_states(base, items, [0, 2], batch_size=2)
    for item, states in zip(items, found, strict=True):
        assert states.shape == (len(item.answers), 2, 2, 32)
        for answer, state in zip(item.answers, states, strict=True):
            ids = torch.tensor([[*item.prompt_ids, *answer]])
            hidden = base.model.get_decoder()(input_ids=ids, output_hidden_states=True).hidden_states
            for at, layer in enumerate([0, 2]):
                alone = hidden[layer + 1][0, len(item.prompt_ids) :]
                torch.testing.assert_close(state[at, 0], alone.mean(dim=0), rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(state[at, 1], alone[-1], rtol=1e-4, atol=1e-4)
