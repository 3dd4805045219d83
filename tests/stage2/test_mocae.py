import json
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from alignx.config import Stage2Config
from alignx.runs.files import read_json, read_tensors, write_json, write_tensors
from alignx.stage2 import fit
from alignx.stage2.fit import SplitFeatures
from alignx.stage2.foreign import auroc, fit_detector, held_out_auroc
from alignx.stage2.fractal import FractalCalibrator
from alignx.stage2.mocae import Head, Mocae
from alignx.stage2.mocae_file import checked_mocae
from alignx.stage2.natural import NaturalCalibrator

AXES, WIDTHS = ("helpful", "harmless", "honest"), (4, 5)
SETTINGS = Stage2Config(dimension_neighbours=(4, 8))


def _split(n: int, seed: int) -> SplitFeatures:
    """Three overlapping clusters; the expert of a prompt's own axis loses least, mostly."""
    centres = 1.5 * torch.randn(3, sum(WIDTHS), generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(n) % 3
    signatures = centres[ids] + torch.randn(n, sum(WIDTHS), generator=generator)
    losses = 2 + 0.3 * torch.rand(n, 3, generator=generator, dtype=torch.float64)
    losses[torch.arange(n), ids] -= 0.2
    return SplitFeatures(signatures, ids, losses)


TRAIN, MIX, CALIBRATION = _split(90, 0), _split(60, 1), _split(60, 2)
FOREIGN = 12 + torch.randn(20, sum(WIDTHS), generator=torch.Generator().manual_seed(4))
PROMPTS = torch.cat([_split(30, 3).signatures, FOREIGN[:5]])


def _fit(**changed) -> Mocae:
    """Fit with a given penalty: choosing it takes most of the time, and is tested with the logistic fit."""
    splits = {"train": TRAIN, "mix": MIX, "calibration": CALIBRATION, "foreign": FOREIGN}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "choose_l2", lambda *arguments: 0.1)
        return fit.fit_mocae(AXES, (3, 7), WIDTHS, **splits, config=SETTINGS.model_copy(update=changed))


@pytest.fixture(scope="module")
def mocae() -> Mocae:
    fitted = _fit()
    # A mixture head of its own, as the end-to-end step leaves behind.
    head = Head(fitted.mixture_head.weight * 1.1, fitted.mixture_head.bias + 0.1, 1.7)
    return fitted.with_mixture(head, 1.3)


def _mix(mocae, prompts=PROMPTS, weights=(1.0, 2.0, 0.5), floors=(0.1, 0.0, 0.2)):
    return mocae.mix(mocae.route(prompts), torch.tensor(weights), torch.tensor(floors), torch.tensor(1.0))


def _permuted(mocae: Mocae, order: list[int]) -> Mocae:
    """The same mixture with its axes, and every parameter that belongs to one, in another order."""
    m = len(order)
    rank = torch.tensor([order.index(axis) for axis in range(m)])
    columns = torch.cat([torch.tensor(order) + m * part for part in range(3)])

    def head(old):
        return Head(old.weight[order][:, columns], old.bias[order], old.temperature)

    def fractal(old):
        return replace(old, axis_ids=rank[old.axis_ids])

    def natural(old):
        return replace(old, means=old.means[order], counts=old.counts[order])

    detector = mocae.detector
    return replace(
        mocae,
        axes=tuple(mocae.axes[axis] for axis in order),
        router_weight=mocae.router_weight[order],
        router_bias=mocae.router_bias[order],
        best_head=head(mocae.best_head),
        mixture_head=head(mocae.mixture_head),
        fractal=fractal(mocae.fractal),
        natural=natural(mocae.natural),
        detector=replace(detector, fractal=fractal(detector.fractal), natural=natural(detector.natural)),
    )


def test_it_learns_whose_prompt_it_is(mocae):
    routing = mocae.route(CALIBRATION.signatures)
    assert (routing.axis_probs.argmax(dim=1) == CALIBRATION.axis_ids).double().mean() > 0.9
    torch.testing.assert_close(routing.axis_probs.sum(dim=1), torch.ones(60, dtype=torch.float64))


def test_foreign_prompts_are_known_as_such(mocae):
    routing = mocae.route(PROMPTS)
    assert routing.known[:30].mean() > 0.8
    assert (routing.known[30:] < 0.5).all()


@pytest.mark.parametrize("order", [list(order) for order in permutations(range(3))])
def test_permuting_axes_and_parameters_permutes_the_mixture(mocae, order):
    weights, floors = (1.0, 2.0, 0.5), (0.1, 0.0, 0.2)
    pi, scale = _mix(mocae)
    permuted = _permuted(mocae, order)
    other, other_scale = _mix(
        permuted, weights=tuple(weights[axis] for axis in order), floors=tuple(floors[axis] for axis in order)
    )
    torch.testing.assert_close(other, pi[:, order])
    torch.testing.assert_close(other_scale, scale)
    assert permuted.axes == tuple(AXES[axis] for axis in order)


def test_saving_and_loading_changes_no_bit(mocae, tmp_path):
    write_tensors(tmp_path / "mocae.safetensors", mocae.tensors())
    write_json(tmp_path / "mocae.json", mocae.settings())
    again = Mocae.from_state(read_tensors(tmp_path / "mocae.safetensors"), read_json(tmp_path / "mocae.json"))
    before, after = mocae.route(PROMPTS), again.route(PROMPTS)
    for name in ("axis_probs", "best_probs", "mixture_logits", "known", "best_features", "mixture_features"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert all(torch.equal(one, other) for one, other in zip(_mix(mocae), _mix(again), strict=True))
    assert again.settings() == mocae.settings() == json.loads(json.dumps(mocae.settings()))


def test_rows_do_not_depend_on_their_batch(mocae):
    together = _mix(mocae)[0]
    alone = torch.cat([_mix(mocae, prompts=PROMPTS[row : row + 1])[0] for row in range(len(PROMPTS))])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-8)


def test_fitting_is_repeatable_to_the_bit():
    one, again = _fit(), _fit()
    assert one.settings() == again.settings()
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in one.tensors().items())


@pytest.mark.parametrize(("switch", "place"), [("fractal", 1), ("natural", 2)])
def test_a_calibrator_that_is_off_has_no_say(switch, place):
    mocae = _fit(**{switch: False})
    routing = mocae.route(PROMPTS)
    assert mocae.coefficients[place] == 0
    for features in (routing.best_features, routing.mixture_features):
        assert (features.split(3, dim=1)[place] == 0).all()


def test_without_learning_the_coefficients_are_the_lambdas_and_the_temperatures_one():
    mocae = _fit(learn_coefficients=False, fit_temperature=False)
    assert mocae.coefficients.tolist() == [1.0, 0.6, 0.4]
    temperatures = (mocae.axis_temperature, mocae.best_head.temperature, *mocae.plain_temperatures)
    assert temperatures == (1.0, 1.0, 1.0, 1.0)


def test_uniform_weighs_every_axis_the_same():
    pi, _ = _mix(_fit(uniform=True), weights=(1.0, 1.0, 1.0), floors=(0.0, 0.0, 0.0))
    torch.testing.assert_close(pi, torch.full_like(pi, 1 / 3))


def _detector(n_calibration: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    train, mix, calibration, fresh = (torch.randn(n, 5, generator=generator) for n in (90, 100, n_calibration, 2000))
    ids = torch.arange(90) % 3
    fractal = FractalCalibrator.fit(train, ids, 3, neighbours=(4, 8))
    detector = fit_detector(NaturalCalibrator.fit(train, ids, 3), fractal, 0, mix=mix, calibration=calibration)
    return detector, calibration, fresh


def test_p_values_of_fresh_prompts_are_uniform():
    detector, _, fresh = _detector(1000)
    p = detector.p_values(fresh)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        assert float((p <= level).double().mean()) == pytest.approx(level, abs=0.05)


def test_p_values_of_the_calibration_split_are_its_ranks():
    detector, calibration, _ = _detector(50)
    p = detector.p_values(calibration).sort().values
    torch.testing.assert_close(p, torch.arange(2, 52).double() / 51)


def test_p_values_are_never_zero_and_fall_with_distance():
    detector, _, _ = _detector(50)
    far = torch.ones(4, 5) * torch.tensor([[0.0], [1.0], [3.0], [100.0]])
    p = detector.p_values(far)
    assert (p.diff() <= 0).all()
    assert p[-1] == pytest.approx(1 / 51)


def test_known_goes_smoothly_from_one_to_zero():
    detector, _, _ = _detector(1000)
    far = torch.ones(200, 5) * torch.linspace(0, 4, 200)[:, None]
    known = detector.known(far, 0.01, 0.05)
    assert known[0] == 1 and known[-1] == 0 and (known.diff() <= 0).all()
    assert ((known > 0) & (known < 1)).any()


def _near_and_foreign():
    """Axes' prompts in a ball; foreign ones in two small clusters at its edge, where distance says little."""
    generator = torch.Generator().manual_seed(0)
    train, mix, calibration = (torch.randn(n, 5, generator=generator) for n in (90, 100, 100))
    edge = 1.6 * torch.eye(5)[torch.arange(40) % 2] + 0.2 * torch.randn(40, 5, generator=generator)
    ids = torch.arange(90) % 3
    fractal = FractalCalibrator.fit(train, ids, 3, neighbours=(4, 8))
    return NaturalCalibrator.fit(train, ids, 3), fractal, mix, calibration, edge


def test_foreign_development_prompts_teach_the_detector_where_to_look():
    natural, fractal, mix, calibration, edge = _near_and_foreign()
    seen, fresh = edge[:20], edge[20:]
    plain = fit_detector(natural, fractal, 0, mix=mix, calibration=calibration)
    taught = fit_detector(natural, fractal, 0, mix=mix, calibration=calibration, foreign=seen)
    assert auroc(plain.scores(fresh), plain.reference) < 0.9
    assert auroc(taught.scores(fresh), taught.reference) > 0.95
    # Far from everything is foreign still, although the foreign prompts are no nearer.
    assert (taught.known(torch.full((1, 5), 50.0), 0.01, 0.05) == 0).all()


def test_the_ratio_of_radii_is_what_it_says():
    natural, fractal, mix, calibration, edge = _near_and_foreign()
    detector = fit_detector(natural, fractal, 0, mix=mix, calibration=calibration, foreign=edge)
    x = torch.tensor([[0.5, -0.2, 0.1, 0.0, 0.3]])
    own, other = (torch.cdist(x, some).sort(dim=1).values[0, 1] for some in (fractal.anchors, edge))
    pair = torch.stack([natural.distance(x)[0], (own / other).log()]).double()
    expected = ((pair - detector.centre) / detector.spread).max()
    torch.testing.assert_close(detector.scores(x)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_depth_is_chosen_by_kinds_that_were_held_out():
    natural, fractal, mix, calibration, edge = _near_and_foreign()
    splits = {"mix": mix, "calibration": calibration, "foreign": edge}
    by_kind = held_out_auroc(natural, fractal, **splits, folds=torch.arange(40) % 2)
    mixed = held_out_auroc(natural, fractal, **splits, folds=torch.arange(40) // 8)
    assert by_kind < mixed  # the two clusters are the kinds: each is new when it is held out
    alone = held_out_auroc(natural, fractal, **splits, folds=torch.zeros(40, dtype=torch.long))
    plain = fit_detector(natural, fractal, 0, mix=mix, calibration=calibration)
    assert alone == auroc(plain.scores(edge), plain.reference)


def test_auroc_agrees_with_scikit_learn():
    positives, negatives = torch.tensor([0.0, 1.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 2.0])
    expected = roc_auc_score([1] * 4 + [0] * 3, [*positives.tolist(), *negatives.tolist()])
    assert auroc(positives, negatives) == pytest.approx(expected)


def test_a_mixture_without_foreign_prompts_reads_as_before(mocae, tmp_path):
    older = replace(mocae, detector=replace(mocae.detector, foreign=None))
    write_tensors(tmp_path / "mocae.safetensors", older.tensors())
    tensors = read_tensors(tmp_path / "mocae.safetensors")
    assert "detector.foreign" not in tensors
    again = checked_mocae(tensors, json.loads(json.dumps(older.settings())), tmp_path / "mocae.safetensors")
    assert torch.equal(again.foreign_scores(PROMPTS), older.foreign_scores(PROMPTS))
