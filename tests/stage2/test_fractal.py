import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, permutations
from torch import Tensor

from alignx.stage2 import fractal as fractal_module
from alignx.stage2.fractal import FractalCalibrator


def _data(seed: int, n: int = 90, b: int = 12, k: int = 4, m: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(n) % m
    anchors = torch.randn(n, k, generator=generator) + 1.5 * torch.randn(m, k, generator=generator)[ids]
    return anchors, ids, torch.randn(b, k, generator=generator)


def _naive_scores(calibrator: FractalCalibrator, x: Tensor, rows: list[int]) -> Tensor:
    """The definition read aloud: one prompt and one axis at a time, all distances sorted."""
    lo, hi = calibrator.neighbours
    out = []
    for prompt, row in zip(x.double(), rows, strict=True):
        kept = [a for a in range(len(calibrator.anchors)) if a != row]
        distance = [math.dist(prompt.tolist(), calibrator.anchors[a].tolist()) / calibrator.scale for a in kept]
        pooled = sorted(distance)[:hi]
        pairs = [(math.log(r), math.log(j)) for j, r in enumerate(pooled, 1) if j >= lo and r > 0]
        mean_x = sum(a for a, _ in pairs) / len(pairs)
        mean_y = sum(b for _, b in pairs) / len(pairs)
        slope = sum((a - mean_x) * (b - mean_y) for a, b in pairs) / sum((a - mean_x) ** 2 for a, _ in pairs)
        scores = []
        for axis in range(calibrator.n_axes):
            own = sorted(r for a, r in zip(kept, distance, strict=True) if calibrator.axis_ids[a] == axis)
            radius = max(own[calibrator.q - 1], calibrator.epsilon)
            scores.append(math.log(calibrator.q / len(own)) - slope * math.log(radius))
        out.append(scores)
    return torch.tensor(out, dtype=torch.float64)


@settings(max_examples=10, deadline=None)
@given(seed=integers(0, 2**16), q=integers(1, 4))
def test_scores_agree_with_the_definition(seed, q):
    anchors, ids, x = _data(seed)
    calibrator = FractalCalibrator.fit(anchors, ids, 3, q=q)
    torch.testing.assert_close(calibrator.scores(x.double()), _naive_scores(calibrator, x, [-1] * len(x)))


@settings(max_examples=10, deadline=None)
@given(seed=integers(0, 2**16))
def test_leaving_one_out_is_a_search_without_that_anchor(seed):
    anchors, ids, x = _data(seed)
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    mixed = torch.cat([anchors[[5, 0, 89]], x[:2]]).double()
    rows = [5, 0, 89, -1, -1]
    found = calibrator.scores(mixed, anchor_rows=torch.tensor(rows))
    torch.testing.assert_close(found, _naive_scores(calibrator, mixed, rows))


def test_leaving_one_out_keeps_the_other_copies_of_a_duplicate():
    anchors, ids, _ = _data(0)
    anchors[:30:3] = anchors[0]  # ten copies, all of axis 0
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    rows = torch.arange(0, 30, 3)
    found = calibrator.scores(anchors[rows].double(), anchor_rows=rows)
    torch.testing.assert_close(found, _naive_scores(calibrator, anchors[rows], rows.tolist()))
    assert bool((found == found[0]).all())


def test_many_duplicates_give_finite_scores_that_favour_their_axis():
    anchors, ids, _ = _data(0, n=300)
    anchors[:180:3] = anchors[0]
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    found = calibrator.scores(anchors[:1], anchor_rows=torch.tensor([0]))
    assert bool(found.isfinite().all())
    assert found.argmax().item() == 0


@settings(max_examples=15, deadline=None)
@given(seed=integers(0, 2**16), order=permutations(range(3)))
def test_permuting_axes_permutes_scores(seed, order):
    anchors, ids, x = _data(seed)
    new_name = torch.tensor(order)
    scores = FractalCalibrator.fit(anchors, ids, 3).scores(x)
    permuted = FractalCalibrator.fit(anchors, new_name[ids], 3).scores(x)
    assert torch.equal(permuted[:, new_name], scores)


@settings(max_examples=15, deadline=None)
@given(seed=integers(0, 2**16), power=integers(-20, 20))
def test_scores_do_not_depend_on_the_unit(seed, power):
    anchors, ids, x = _data(seed)
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    scaled = FractalCalibrator.fit(anchors * 2.0**power, ids, 3)
    torch.testing.assert_close(scaled.scores(x * 2.0**power), calibrator.scores(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scaled.pooled_radius(x * 2.0**power), calibrator.pooled_radius(x))
    other = FractalCalibrator.fit(anchors * 3.7, ids, 3)
    torch.testing.assert_close(other.scores(x * 3.7), calibrator.scores(x), rtol=1e-4, atol=1e-4)


def test_pooled_radius_is_the_distance_to_the_qth_nearest_anchor():
    anchors, ids, x = _data(1)
    calibrator = FractalCalibrator.fit(anchors, ids, 3, q=3)
    distances = torch.cdist(x.double(), anchors.double()).sort(dim=1).values / calibrator.scale
    torch.testing.assert_close(calibrator.pooled_radius(x.double()), distances[:, 2])
    own = calibrator.pooled_radius(anchors.double(), anchor_rows=torch.arange(len(anchors)))
    distances = torch.cdist(anchors.double(), anchors.double()).fill_diagonal_(math.inf).sort(dim=1).values
    torch.testing.assert_close(own, distances[:, 2] / calibrator.scale)


def test_save_and_load_changes_no_bit():
    anchors, ids, x = _data(2)
    calibrator = FractalCalibrator.fit(anchors, ids, 3, epsilon=0.07, q=3, neighbours=(10, 30))
    tensors = {name: tensor.clone() for name, tensor in calibrator.tensors().items()}
    loaded = FractalCalibrator.from_state(tensors, json.loads(json.dumps(calibrator.settings())))
    assert torch.equal(loaded.scores(x), calibrator.scores(x))
    assert torch.equal(loaded.pooled_radius(x), calibrator.pooled_radius(x))
    assert loaded.settings() == calibrator.settings()
    with pytest.raises(ValueError, match="axis_ids"):
        FractalCalibrator.from_state({"anchors": tensors["anchors"]}, calibrator.settings())


@pytest.mark.parametrize(("queries", "chunk", "exact"), [(1, 1, 1), (5, 7, 2), (100, 13, 100)])
def test_chunking_does_not_change_scores(monkeypatch, queries, chunk, exact):
    anchors, ids, x = _data(3, n=150, b=20)
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    rows = torch.arange(20)
    whole = calibrator.scores(x), calibrator.scores(anchors[:20], anchor_rows=rows)
    monkeypatch.setattr(fractal_module, "_QUERY_BLOCK", queries)
    monkeypatch.setattr(fractal_module, "_ANCHOR_CHUNK", chunk)
    monkeypatch.setattr(fractal_module, "_EXACT_BLOCK", exact)
    torch.testing.assert_close(calibrator.scores(x), whole[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(calibrator.scores(anchors[:20], anchor_rows=rows), whole[1], rtol=1e-6, atol=1e-6)


def test_near_distances_survive_a_far_origin():
    """A tight cluster far from zero: the matmul form alone would lose all of it."""
    generator = torch.Generator().manual_seed(0)
    anchors = (torch.randint(-512, 512, (300, 8), generator=generator).float() * 2.0**-9) + 4096.0
    assert bool((anchors[:, 0] != anchors[0, 0]).any())
    calibrator = FractalCalibrator.fit(anchors, torch.arange(300) % 2, 2, epsilon=1e-6)
    x = anchors[:20].double() + 2.0**-20
    distances = torch.cdist(x, anchors.double(), compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values
    torch.testing.assert_close(calibrator.pooled_radius(x), distances[:, 1] / calibrator.scale, rtol=1e-12, atol=0)


def test_score_differences_follow_the_log_density_ratio_of_two_gaussians():
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([1.0, 0.0, 0.0])
    ids = torch.arange(4_000) % 2
    anchors = torch.randn(4_000, 3, generator=generator) + mean * (2.0 * ids[:, None] - 1)
    x = torch.randn(400, 3, generator=generator)
    scores = FractalCalibrator.fit(anchors, ids, 2, q=4).scores(x)
    found, true = scores[:, 1] - scores[:, 0], 2 * x[:, 0]  # log N(x; mean) - log N(x; -mean) = 2 mean.x
    assert torch.corrcoef(torch.stack([found, true]))[0, 1].item() > 0.9
    slope = ((found - found.mean()) * (true - true.mean())).sum() / (true - true.mean()).square().sum()
    assert slope.item() == pytest.approx(1.0, abs=0.15)


def test_score_differences_give_the_ratio_of_two_uniform_densities():
    """Axis 1 has three times the anchors on nine times the area: its own density is a ninth, not a third."""
    generator = torch.Generator().manual_seed(0)
    small, large = (
        torch.rand(1_000, 2, generator=generator),
        3 * torch.rand(3_000, 2, generator=generator) - 1,
    )
    ids = torch.cat([torch.zeros(1_000), torch.ones(3_000)]).long()
    calibrator = FractalCalibrator.fit(torch.cat([small, large]), ids, 2, epsilon=1e-3)
    scores = calibrator.scores(0.8 * torch.rand(500, 2, generator=generator) + 0.1)
    assert (scores[:, 0] - scores[:, 1]).mean().item() == pytest.approx(math.log(9), abs=0.15)


def test_scores_of_a_prompt_do_not_depend_on_its_batch_and_keep_its_precision():
    anchors, ids, x = _data(4)
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    together = calibrator.scores(x)
    alone = torch.cat([calibrator.scores(row[None]) for row in x])
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=1e-6)
    assert together.dtype == calibrator.scores(x.bfloat16()).dtype == torch.float32
    assert calibrator.scores(x.double()).dtype == torch.float64
    assert calibrator.scores(x[:0]).shape == (0, 3)
    assert calibrator.pooled_radius(x[:0]).shape == (0,)


def test_far_prompts_get_finite_scores_and_large_radii():
    anchors, ids, x = _data(5)
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    far = 1e4 * x
    assert bool(calibrator.scores(far).isfinite().all())
    assert bool((calibrator.pooled_radius(far) > calibrator.pooled_radius(x)).all())


def test_fewest_possible_anchors_still_score():
    anchors = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    calibrator = FractalCalibrator.fit(anchors, torch.arange(6) % 2, 2)
    assert bool(calibrator.scores(anchors, anchor_rows=torch.arange(6)).isfinite().all())


def test_fit_copies_its_input():
    anchors, ids, x = _data(6)
    calibrator = FractalCalibrator.fit(anchors, ids, 3)
    before = calibrator.scores(x)
    anchors.zero_()
    ids.zero_()
    assert torch.equal(calibrator.scores(x), before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"points": torch.full((9, 2), math.nan)}, "NaN"),
        ({"points": torch.ones(9, 2)}, "identical"),
        ({"points": torch.randn(9)}, "shape"),
        ({"axis_ids": torch.arange(8) % 3}, "axis id"),
        ({"axis_ids": torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])}, r"\{2: 2\}"),
        ({"axis_ids": torch.arange(9)}, "0..2"),
        ({"n_axes": 0}, "n_axes"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"q": 0}, "q must"),
        ({"neighbours": (40, 16)}, "lo < hi"),
    ],
)
def test_fit_refuses_what_it_cannot_use(change, sentence):
    given = {
        "points": torch.randn(9, 2, generator=torch.Generator().manual_seed(0)),
        "axis_ids": torch.arange(9) % 3,
        "n_axes": 3,
        **change,
    }
    with pytest.raises(ValueError, match=sentence):
        FractalCalibrator.fit(**given)


@pytest.mark.parametrize(
    ("x", "rows", "sentence"),
    [
        (torch.zeros(2, 5), None, "shape"),
        (torch.zeros(4), None, "shape"),
        (torch.full((2, 4), math.inf), None, "infinite"),
        (torch.zeros(2, 4), torch.tensor([0]), "anchor_rows"),
        (torch.zeros(2, 4), torch.tensor([0, 90]), "0|89"),
        (torch.zeros(2, 4), torch.tensor([0, -2]), "-1"),
    ],
)
def test_scores_refuse_what_they_cannot_use(x, rows, sentence):
    anchors, ids, _ = _data(0)
    with pytest.raises(ValueError, match=sentence):
        FractalCalibrator.fit(anchors, ids, 3).scores(x, anchor_rows=rows)
