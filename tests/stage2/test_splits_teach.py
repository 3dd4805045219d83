"""Which split teaches what: changing one split's rows changes only what that split may teach."""

from dataclasses import replace

import pytest
import torch

from alignx.config import Stage2Config
from alignx.stage2 import fit
from alignx.stage2.fit import SplitFeatures
from alignx.stage2.mocae import Mocae

AXES, WIDTHS = ("helpful", "harmless", "honest"), (4, 5)
CONFIG = Stage2Config(dimension_neighbours=(4, 8))
PROMPTS = torch.randn(20, sum(WIDTHS), generator=torch.Generator().manual_seed(7))


def _split(n: int, seed: int) -> SplitFeatures:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, sum(WIDTHS), generator=torch.Generator().manual_seed(99))
    ids = torch.arange(n) % 3
    losses = 2 + 0.3 * torch.rand(n, 3, generator=generator, dtype=torch.float64)
    losses[torch.arange(n), ids] -= 0.2
    return SplitFeatures(centres[ids] + torch.randn(n, sum(WIDTHS), generator=generator), ids, losses)


TRAIN, MIX, CALIBRATION = _split(90, 0), _split(60, 1), _split(60, 2)
FOREIGN = 6 + torch.randn(20, sum(WIDTHS), generator=torch.Generator().manual_seed(4))


def _fit(mix: SplitFeatures = MIX, calibration: SplitFeatures = CALIBRATION, **changed) -> Mocae:
    config = CONFIG.model_copy(update=changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "choose_l2", lambda *arguments: 0.1)
        splits = {"train": TRAIN, "mix": mix, "calibration": calibration, "foreign": FOREIGN}
        return fit.fit_mocae(AXES, (3, 7), WIDTHS, **splits, config=config)


@pytest.fixture(scope="module")
def fitted() -> Mocae:
    return _fit()


def _same(one: Mocae, other: Mocae, *names: str) -> None:
    for name in names:
        assert torch.equal(one.tensors()[name], other.tensors()[name]), name


def _relabelled(split: SplitFeatures) -> SplitFeatures:
    """Other labels and other best experts on the same prompts."""
    return replace(split, axis_ids=split.axis_ids.roll(20), expert_losses=split.expert_losses.roll(1, dims=1))


def _what_best_head_says(mocae: Mocae) -> torch.Tensor:
    return mocae.best_head.logits(mocae.route(PROMPTS).best_features) * mocae.best_head.temperature


def _what_mixture_head_says(mocae: Mocae) -> torch.Tensor:
    return mocae.mixture_head.logits(mocae.route(PROMPTS).mixture_features) * mocae.mixture_head.temperature


def test_calibration_labels_fit_temperatures_and_nothing_else(fitted):
    other = _fit(calibration=_relabelled(CALIBRATION))
    _same(fitted, other, "router_weight", "router_bias", "coefficients", "scales")
    for says in (_what_best_head_says, _what_mixture_head_says):
        torch.testing.assert_close(says(other), says(fitted), rtol=1e-9, atol=1e-9)
    assert other.axis_temperature != fitted.axis_temperature
    assert other.best_head.temperature != fitted.best_head.temperature
    assert other.plain_temperatures != fitted.plain_temperatures
    torch.testing.assert_close(other.route(PROMPTS).known, fitted.route(PROMPTS).known, rtol=0, atol=0)


def test_calibration_prompts_fit_scales_and_p_values_but_no_router(fitted):
    other = _fit(calibration=replace(CALIBRATION, signatures=CALIBRATION.signatures * 1.5))
    _same(fitted, other, "router_weight", "router_bias")
    assert not torch.equal(other.scales, fitted.scales)
    assert not torch.equal(other.detector.reference, fitted.detector.reference)


def test_with_the_same_scales_calibration_prompts_do_not_reach_the_coefficients(fitted, monkeypatch):
    monkeypatch.setattr(fit, "_fit_scales", lambda *arguments: fitted.scales)
    other = _fit(calibration=replace(CALIBRATION, signatures=CALIBRATION.signatures.flip(0) * 1.5))
    _same(fitted, other, "router_weight", "router_bias", "coefficients", "scales")
    for says in (_what_best_head_says, _what_mixture_head_says):
        torch.testing.assert_close(says(other), says(fitted), rtol=1e-9, atol=1e-9)


def test_mix_rows_teach_coefficients_and_heads_but_no_router_and_no_scale(fitted):
    other = _fit(mix=replace(_relabelled(MIX), signatures=MIX.signatures.flip(0)))
    _same(fitted, other, "router_weight", "router_bias", "scales")
    for name in ("axis_ids", "anchors"):  # whatever else the calibrator keeps of them
        found = [key for key in fitted.tensors() if key.startswith("fractal.") and key.endswith(name)]
        _same(fitted, other, *found)
    assert not torch.equal(other.coefficients, fitted.coefficients)
    assert not torch.equal(other.best_head.weight, fitted.best_head.weight)


def test_mix_losses_alone_teach_the_heads_alone(fitted):
    other = _fit(mix=replace(MIX, expert_losses=MIX.expert_losses.roll(1, dims=1)))
    _same(fitted, other, "router_weight", "router_bias", "coefficients", "scales")
    assert other.axis_temperature == fitted.axis_temperature
    for one, another in ((other.best_head, fitted.best_head), (other.mixture_head, fitted.mixture_head)):
        assert not torch.equal(one.weight, another.weight)


def test_the_warm_start_has_no_strength_of_its_own(fitted):
    assert fitted.strength == 1.0
