import math
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers
from torch import Tensor

from alignx.stage2 import dimension as dimension_module
from alignx.stage2.dimension import (
    box_counting_dimension,
    correlation_dimension,
    local_dimension,
    median_distance,
)

HEIGHT = math.sqrt(3) / 2


def _map(scale: float, shift: tuple[float, ...], degrees: float = 0.0) -> tuple[Tensor, Tensor]:
    if len(shift) == 1:
        matrix = torch.tensor([[scale]], dtype=torch.float64)
    else:
        angle = math.radians(degrees)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        matrix = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    return matrix, torch.tensor(shift, dtype=torch.float64)


# Each set as the maps that send it onto its parts (all of equal size), and its known dimension.
SETS = {
    "line": ([_map(1 / 2, (0.0,)), _map(1 / 2, (1 / 2,))], 1.0),
    "square": ([_map(1 / 2, (a / 2, b / 2)) for a in (0, 1) for b in (0, 1)], 2.0),
    "cantor": ([_map(1 / 3, (0.0,)), _map(1 / 3, (2 / 3,))], math.log(2) / math.log(3)),
    "koch": (
        [
            _map(1 / 3, (0.0, 0.0)),
            _map(1 / 3, (1 / 3, 0.0), 60),
            _map(1 / 3, (1 / 2, HEIGHT / 3), -60),
            _map(1 / 3, (2 / 3, 0.0)),
        ],
        math.log(4) / math.log(3),
    ),
    "sierpinski": (
        [_map(1 / 2, (0.0, 0.0)), _map(1 / 2, (1 / 2, 0.0)), _map(1 / 2, (1 / 4, HEIGHT / 2))],
        math.log(3) / math.log(2),
    ),
}


def _random_points(name: str, n: int, seed: int) -> Tensor:
    maps = SETS[name][0]
    matrices, shifts = torch.stack([m for m, _ in maps]), torch.stack([t for _, t in maps])
    generator = torch.Generator().manual_seed(seed)
    points = torch.zeros(n, shifts.shape[1], dtype=torch.float64)
    for _ in range(40):
        choice = torch.randint(len(maps), (n,), generator=generator)
        points = torch.einsum("nij,nj->ni", matrices[choice], points) + shifts[choice]
    return points


def _even_points(name: str) -> Tensor:
    maps = SETS[name][0]
    points = torch.zeros(1, maps[0][1].numel(), dtype=torch.float64)
    while len(points) < 2_500:
        points = torch.cat([points @ matrix.T + shift for matrix, shift in maps])
    return points


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("estimate", [box_counting_dimension, correlation_dimension])
@pytest.mark.parametrize("name", SETS)
def test_known_dimension_is_found_within_five_percent(name, estimate, seed):
    assert estimate(_random_points(name, 2_500, seed)) == pytest.approx(SETS[name][1], rel=0.05)


@pytest.mark.parametrize("estimate", [box_counting_dimension, correlation_dimension])
@pytest.mark.parametrize("name", SETS)
def test_known_dimension_is_found_on_evenly_laid_points(name, estimate):
    assert estimate(_even_points(name)) == pytest.approx(SETS[name][1], rel=0.05)


@pytest.mark.parametrize("estimate", [box_counting_dimension, correlation_dimension])
def test_dimension_does_not_depend_on_the_space_unit_or_place(estimate):
    points = _random_points("sierpinski", 2_500, 0)
    basis = torch.linalg.qr(torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    moved = 250.0 * points @ basis.T + 40.0
    assert estimate(moved) == pytest.approx(estimate(points), rel=0.03)
    assert estimate(moved.float()) == pytest.approx(estimate(moved), rel=0.01)


# scikit-dimension 0.5.0, made by scripts/skdim_golden.py: CorrInt(k1=10, k2=20) of the set and the pointwise
# median of MLE over 40 neighbours. The fits differ (theirs at the nearest 10 to 20 neighbours, maximum
# likelihood instead of least squares), so agreement is a few per cent.
SKDIM = {"ball": (2.9125, 2.8950), "swiss_roll": (1.9283, 1.9669)}


@pytest.mark.parametrize("name", SKDIM)
def test_agreement_with_scikit_dimension(name):
    makers = runpy.run_path(str(Path(__file__).parent / "scripts" / "skdim_golden.py"))
    points = torch.from_numpy(makers["ball"](3000, 3, 8) if name == "ball" else makers["swiss_roll"](3000))
    correlation, local = SKDIM[name]
    assert correlation_dimension(points) == pytest.approx(correlation, rel=0.02)
    assert box_counting_dimension(points) == pytest.approx(correlation, rel=0.06)
    distances = torch.cdist(points[:500], points).sort(dim=1).values[:, 1:41]
    assert local_dimension(distances).mean().item() == pytest.approx(local, rel=0.05)


def test_chunking_and_reference_sampling_do_not_change_the_dimension(monkeypatch):
    points = _random_points("koch", 3_000, 3)
    whole = correlation_dimension(points), box_counting_dimension(points)
    monkeypatch.setattr(dimension_module, "_PAIR_CHUNK", 700)
    monkeypatch.setattr(dimension_module, "_DISTANCES_HELD", 100_000)
    assert (correlation_dimension(points), box_counting_dimension(points)) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(dimension_module, "_REFERENCE_POINTS", 1_000)
    assert correlation_dimension(points) == pytest.approx(whole[0], rel=0.02)


def test_caller_keeps_its_points():
    points = _random_points("line", 200, 0)
    copy = points.clone()
    median_distance(points)
    correlation_dimension(points)
    assert torch.equal(points, copy)


def test_median_distance_is_exact_for_few_points_and_close_for_many():
    few = _random_points("square", 200, 0)
    assert median_distance(few) == pytest.approx(torch.pdist(few).median().item(), rel=1e-12)
    many = _random_points("square", 3_000, 0)
    assert median_distance(many) == pytest.approx(torch.pdist(many).median().item(), rel=0.01)


@pytest.mark.parametrize("estimate", [box_counting_dimension, correlation_dimension])
@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (torch.zeros(10), "shape"),
        (torch.zeros(1, 2), "at least two"),
        (torch.zeros(5, 2, dtype=torch.int64), "floating"),
        (torch.tensor([[0.0], [math.nan]]), "NaN"),
        (torch.ones(50, 2), "identical"),
        (torch.randn(40, 30, generator=torch.Generator().manual_seed(0)), "more points"),
    ],
)
def test_sets_without_a_dimension_are_refused(estimate, points, sentence):
    with pytest.raises(ValueError, match=sentence):
        estimate(points)


def _power_law(dimension: float, n: int, rows: int = 1) -> Tensor:
    return (torch.arange(1, n + 1, dtype=torch.float64) ** (1 / dimension)).repeat(rows, 1)


@settings(max_examples=50, deadline=None)
@given(dimension=floats(0.05, 200.0), scale=floats(1e-6, 1e6))
def test_local_dimension_reads_a_power_law_exactly_in_any_unit(dimension, scale):
    assert local_dimension(scale * _power_law(dimension, 40)).item() == pytest.approx(dimension, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(n=integers(2, 60))
def test_local_dimension_uses_the_neighbours_there_are(n):
    assert local_dimension(_power_law(3.0, n)).item() == pytest.approx(3.0)
    padded = torch.cat([_power_law(3.0, n), torch.full((1, 60 - n), math.inf, dtype=torch.float64)], dim=1)
    assert local_dimension(padded).item() == pytest.approx(3.0)


def test_local_dimension_is_the_polyfit_slope():
    distances = torch.rand(5, 50, generator=torch.Generator().manual_seed(0)).double().sort(dim=1).values
    ranks = torch.arange(10, 31).double().log()
    design = torch.stack([distances[:, 9:30].log(), torch.ones(5, 21, dtype=torch.float64)], dim=2)
    expected = torch.linalg.lstsq(design, ranks.expand(5, 21)[..., None]).solution[:, 0, 0]
    torch.testing.assert_close(local_dimension(distances, 10, 30), expected)


def test_local_dimension_skips_duplicates_and_keeps_their_count():
    distances = _power_law(2.0, 40)
    distances[:, :20] = 0.0
    assert local_dimension(distances).item() == pytest.approx(2.0)


@settings(max_examples=50, deadline=None)
@given(seed=integers(0, 2**16), zeros=integers(0, 45), missing=integers(0, 45), ties=integers(0, 45))
def test_local_dimension_is_always_finite_and_positive(seed, zeros, missing, ties):
    distances = torch.rand(3, 45, generator=torch.Generator().manual_seed(seed)).sort(dim=1).values
    distances[:, 45 - ties :] = 1.0
    distances[:, 45 - missing :] = math.inf
    distances[:, :zeros] = 0.0
    found = local_dimension(distances)
    assert found.shape == (3,)
    assert bool(((found >= 0.01) & (found <= 1000)).all())


def test_local_dimension_without_information():
    assert local_dimension(torch.zeros(1, 40)).item() == 1.0
    assert local_dimension(torch.ones(1, 1)).item() == 1.0
    assert local_dimension(torch.ones(1, 40)).item() == 1000.0
    assert local_dimension(torch.ones(0, 40)).shape == (0,)


@pytest.mark.parametrize(
    ("distances", "lo", "hi"),
    [
        (torch.ones(3), 16, 40),
        (torch.ones(3, 0), 16, 40),
        (torch.ones(3, 50), 40, 16),
        (torch.ones(3, 50), 0, 16),
        (torch.tensor([[2.0, 1.0]]), 1, 2),
        (torch.tensor([[math.nan, 1.0]]), 1, 2),
        (torch.tensor([[-1.0, 1.0]]), 1, 2),
    ],
)
def test_local_dimension_refuses_what_are_not_distances(distances, lo, hi):
    with pytest.raises(ValueError, match="local_dimension"):
        local_dimension(distances, lo, hi)
