import torch

from alignx.stage1.latent import fit_latent_space
from alignx.stage2.fit import FittingInputs, SplitFeatures
from alignx.stage2.narrower import Narrowing

LAYERS, HIDDEN, COUNTS = (1, 3), 12, (40, 25, 30)


def _states() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(3, 0.2, HIDDEN)
    return [number + torch.randn(n, 2, HIDDEN, generator=generator) * spread for number, n in enumerate(COUNTS)]


def test_a_narrowed_space_is_what_stage1_makes_with_that_latent_size():
    states = _states()
    wide, narrow = (fit_latent_space([[rows] for rows in states], LAYERS, k) for k in (8, 3))
    ids = torch.cat([torch.full((len(rows),), axis) for axis, rows in enumerate(states)])
    train = SplitFeatures(wide.signature(torch.cat(states)), ids, torch.empty(0, 3))
    fresh = torch.randn(5, 2, HIDDEN, generator=torch.Generator().manual_seed(1))
    split = SplitFeatures(wide.signature(fresh), torch.zeros(5, dtype=torch.long), torch.ones(5, 3))
    inputs = FittingInputs(("a", "b", "c"), LAYERS, (8, 8), train, split, split, wide.signature(fresh))
    narrowing = Narrowing(inputs, 3)
    torch.testing.assert_close(
        narrowing.signatures(wide.signature(fresh)), narrow.signature(fresh), rtol=1e-4, atol=1e-4
    )
    found = narrowing.fitting_inputs()
    assert found.widths == (3, 3) and found.train.signatures.shape == (95, 6) and found.foreign.shape == (5, 6)
    assert torch.equal(found.mix.expert_losses, split.expert_losses)


def test_a_block_that_has_fewer_directions_keeps_them():
    split = SplitFeatures(torch.randn(9, 5), torch.arange(9) % 3, torch.ones(9, 3))
    inputs = FittingInputs(("a", "b", "c"), LAYERS, (2, 3), split, split, split, torch.randn(2, 5))
    assert Narrowing(inputs, 2).widths == (2, 2)
