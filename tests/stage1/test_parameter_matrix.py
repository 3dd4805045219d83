import math

import pytest
import torch

from alignx.models.low_rank import LowRankUpdate
from alignx.stage1.parameter_matrix import module_seed, parameter_matrix, squarest_factors
from alignx.stage1.task_vector import TaskVector


def _vector(seed: int, names=("a", "b"), out: int = 12, width: int = 10, rank: int = 2) -> TaskVector:
    generator = torch.Generator().manual_seed(seed)
    return TaskVector(
        {
            name: LowRankUpdate(
                torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator), 2.0
            )
            for name in names
        }
    )


def _within_three_standard_errors(samples: torch.Tensor, truth: float) -> bool:
    return abs(float(samples.mean()) - truth) <= 3 * float(samples.std()) / math.sqrt(len(samples))


def test_row_inner_products_are_unbiased():
    one, other = _vector(0), _vector(1)
    sketches = [
        (parameter_matrix(one, 16, seed=s).double(), parameter_matrix(other, 16, seed=s).double()) for s in range(500)
    ]
    for row, name in enumerate(["a", "b"]):
        products = torch.stack([p[row] @ q[row] for p, q in sketches])
        squares = torch.stack([p[row] @ p[row] for p, _ in sketches])
        assert _within_three_standard_errors(products, one.updates[name].inner(other.updates[name]))
        assert _within_three_standard_errors(squares, one.updates[name].inner(one.updates[name]))


def test_modules_are_sketched_independently():
    same = _vector(0, names=("a",)).updates["a"]
    vector = TaskVector({"a": same, "b": same})
    sketches = [parameter_matrix(vector, 16, seed=seed).double() for seed in range(500)]
    assert _within_three_standard_errors(torch.stack([sketch[0] @ sketch[1] for sketch in sketches]), 0.0)


def test_a_module_is_sketched_by_its_name_alone():
    both, alone = _vector(0), _vector(0, names=("a",))
    assert torch.equal(parameter_matrix(both, 16)[0], parameter_matrix(alone, 16)[0])
    renamed = TaskVector({"c": alone.updates["a"]})
    assert not torch.equal(parameter_matrix(renamed, 16), parameter_matrix(alone, 16))


def test_the_sketch_is_linear():
    vector = _vector(0)
    torch.testing.assert_close(parameter_matrix(vector.scaled(-3), 16), -3 * parameter_matrix(vector, 16))


@pytest.mark.parametrize(("k", "factors"), [(256, (16, 16)), (8, (2, 4)), (7, (1, 7)), (1, (1, 1))])
def test_the_width_is_factored_most_squarely(k, factors):
    assert squarest_factors(k) == factors
    assert parameter_matrix(_vector(0), k).shape == (2, k)


def test_seeds_fit_a_generator_and_differ():
    seeds = {module_seed(name, seed) for name in ("a", "b", "ab") for seed in range(3)}
    assert len(seeds) == 9 and all(0 <= seed < 2**63 for seed in seeds)
