import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import composite, floats, integers, permutations, sampled_from

from alignx.errors import DialError
from alignx.stage2.dial import Dial, expert_scale, mixture_weights

AXES = ("helpful", "harmless", "honest")
FALLBACKS = sampled_from(["prior", "base"])


@composite
def dials(draw, m=3, b=4):
    """Logits (b, m), g (b,), weights (m,) of which some are 0, floors (m,) of the axes that are on."""
    logits = torch.from_numpy(draw(arrays("float64", (b, m), elements=floats(-30, 30))))
    known = torch.from_numpy(draw(arrays("float64", b, elements=floats(0, 1))))
    weights = torch.from_numpy(draw(arrays("float64", m, elements=sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 7.0]))))
    weights[draw(integers(0, m - 1))] = 1.0
    shares = torch.from_numpy(draw(arrays("float64", m, elements=floats(0, 1)))) * (weights > 0)
    floors = shares / max(float(shares.sum()), 1.0)
    return logits, known, weights, floors


@given(dial=dials(), fallback=FALLBACKS)
def test_the_mixture_keeps_its_floors_and_never_exceeds_one(dial, fallback):
    pi = mixture_weights(*dial, fallback=fallback)
    assert (pi >= dial[3] - 1e-12).all()
    assert (pi.sum(dim=1) <= 1 + 1e-12).all()


@given(dial=dials())
def test_the_mixture_sums_to_one_when_the_prior_speaks(dial):
    torch.testing.assert_close(mixture_weights(*dial).sum(dim=1), torch.ones(4, dtype=torch.float64))


@given(dial=dials(), axis=integers(0, 2), more=floats(1, 10), fallback=FALLBACKS)
def test_raising_a_weight_never_lowers_its_share(dial, axis, more, fallback):
    logits, known, weights, floors = dial
    raised = weights.clone()
    raised[axis] = raised[axis] * more + (more - 1)
    before, after = (mixture_weights(logits, known, w, floors, fallback=fallback) for w in (weights, raised))
    assert (after[:, axis] >= before[:, axis] - 1e-12).all()


@given(dial=dials(), order=permutations(range(3)), fallback=FALLBACKS)
def test_permuting_the_axes_permutes_the_mixture(dial, order, fallback):
    logits, known, weights, floors = dial
    permuted = mixture_weights(logits[:, order], known, weights[order], floors[order], fallback=fallback)
    torch.testing.assert_close(permuted, mixture_weights(*dial, fallback=fallback)[:, order])


@given(dial=dials(), axis=integers(0, 2), temperature=floats(0.1, 10))
def test_doubling_a_weight_doubles_its_odds_whatever_the_temperature(dial, axis, temperature):
    logits = dial[0] / 10 / temperature
    known, floors = torch.ones(4), torch.zeros(3)
    weights = torch.ones(3, dtype=torch.float64)
    doubled = torch.where(torch.arange(3) == axis, 2.0, 1.0)
    before, after = (mixture_weights(logits, known, w, floors) for w in (weights, doubled))
    others = [other for other in range(3) if other != axis]
    odds, new_odds = (pi[:, axis] / pi[:, others].sum(dim=1) for pi in (before, after))
    torch.testing.assert_close(new_odds, 2 * odds)


@given(dial=dials(), fallback=FALLBACKS)
def test_an_axis_that_is_off_gets_nothing(dial, fallback):
    logits, known, weights, floors = dial
    assert (mixture_weights(logits, known, weights, floors, fallback=fallback)[:, weights == 0] == 0).all()


def test_where_no_expert_applies_the_fallback_speaks():
    logits, foreign = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64), torch.zeros(1)
    weights, floors = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.2, 0.0, 0.0])
    torch.testing.assert_close(
        mixture_weights(logits, foreign, weights, floors), torch.tensor([[0.4, 0.2, 0.4]], dtype=torch.float64)
    )
    torch.testing.assert_close(
        mixture_weights(logits, foreign, weights, floors, fallback="base"),
        torch.tensor([[0.2, 0.0, 0.0]], dtype=torch.float64),
    )


def test_every_row_may_have_its_own_dial():
    logits, known = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double(), torch.ones(2)
    weights, floors = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 1.0]]), torch.tensor([[0.5, 0, 0], [0, 0, 0.1]])
    together = mixture_weights(logits, known, weights, floors)
    for row in range(2):
        alone = mixture_weights(logits[row : row + 1], known[:1], weights[row], floors[row])
        torch.testing.assert_close(together[row : row + 1], alone)


@given(axis=integers(0, 2), strength=floats(-3, 3), learned=floats(0.1, 10))
def test_an_expert_that_speaks_alone_is_used_as_it_was_trained(axis, strength, learned):
    scale = expert_scale(
        torch.eye(3, dtype=torch.float64)[axis : axis + 1], torch.tensor(strength), torch.tensor(learned)
    )
    assert scale.tolist() == [torch.tensor(strength).item()]


def test_an_even_mixture_is_scaled_by_all_that_was_learned():
    third = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    assert float(expert_scale(third, torch.tensor(2.0), torch.tensor(1.5))) == pytest.approx(3.0)


@pytest.mark.parametrize("pi", [[[1.0]], [[0.0, 0.0]], [[0.0, 0.5]]])
def test_one_axis_no_axis_and_half_an_axis_are_not_scaled(pi):
    found = expert_scale(torch.tensor(pi, dtype=torch.float64), torch.tensor(1.0), torch.tensor(3.0))
    assert found.tolist() == [1.0]


def test_the_gradient_of_the_scale_is_finite_when_a_share_is_zero():
    """A softmax underflows to exactly 0 where logits are more than 745 apart."""
    logits = torch.tensor([[800.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    scale = expert_scale(logits.softmax(dim=1), torch.tensor(1.0), torch.tensor(1.2, dtype=torch.float64))
    scale.sum().backward()
    assert logits.grad.isfinite().all()


def test_a_dial_left_alone_weighs_every_axis_the_same():
    dial = Dial()
    assert dial.weight_vector(AXES).tolist() == [1, 1, 1]
    assert dial.floor_vector(AXES).tolist() == [0, 0, 0]
    assert dial.checked_strength() == 1


def test_a_dial_is_read_in_the_axes_order():
    dial = Dial({"honest": 3, "helpful": 0}, {"harmless": 0.25}, -1)
    assert dial.weight_vector(AXES).tolist() == [0, 1, 3]
    assert dial.floor_vector(AXES).tolist() == [0, 0.25, 0]
    assert dial.checked_strength() == -1


@pytest.mark.parametrize(
    ("dial", "fault"),
    [
        (Dial({"honets": 1}), "weight honets=1: unknown axis; did you mean `honest`"),
        (Dial({"xyz": 1}), "axes of this run: helpful, harmless, honest"),
        (Dial({"honest": -1}), "weight honest=-1"),
        (Dial({"honest": math.nan}), "weight honest=nan"),
        (Dial({"honest": math.inf}), "weight honest=inf"),
        (Dial({"honest": "2"}), "weight honest=2"),
        (Dial({"honest": True}), "weight honest=True"),
        (Dial(dict.fromkeys(AXES, 0)), "all axis weights are 0"),
        (Dial({}, {"honets": 0.1}), "floor honets=0.1: unknown axis"),
        (Dial({}, {"honest": -0.1}), "floor honest=-0.1"),
        (Dial({}, {"honest": math.nan}), "floor honest=nan"),
        (Dial({}, {"honest": 1.5}), "1.5"),
        (Dial({}, {"honest": 0.6, "helpful": 0.5}), "floors add up to 1.1, more than 1"),
        (Dial({"honest": 0}, {"honest": 0.2}), "floor honest=0.2 contradicts weight honest=0"),
        (Dial({"honest": 10**400}), "weight honest=1000"),
        (Dial(strength=math.nan), "strength nan"),
        (Dial(strength=math.inf), "strength inf"),
        (Dial(strength="1"), "strength '1'"),
    ],
)
def test_an_impossible_dial_is_refused(dial, fault):
    with pytest.raises(DialError, match=fault.replace("(", r"\(")):
        dial.weight_vector(AXES)
        dial.floor_vector(AXES)
        dial.checked_strength()


def test_a_huge_weight_is_taken_as_it_is_and_a_missing_one_is_1():
    weights = Dial({"honest": 1e9}).weight_vector(AXES)
    assert weights.tolist() == [1, 1, 1e9]
    pi = mixture_weights(torch.zeros(1, 3).double(), torch.ones(1), weights, torch.zeros(3))
    torch.testing.assert_close(pi, torch.tensor([[1e-9, 1e-9, 1 - 2e-9]], dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_largest_floats_keep_the_prior_and_numpys_numbers_are_numbers():
    weights = Dial({"honest": 1.5e308, "helpful": np.float32(1.5), "harmless": np.int64(0)}).weight_vector(AXES)
    assert sorted(weights.tolist()) == [0, 1.5, 1.5e308]
    both = Dial({"honest": 1.5e308, "helpful": 1.5e308, "harmless": 0}).weight_vector(AXES)
    pi = mixture_weights(torch.zeros(1, 3).double(), torch.zeros(1), both, torch.zeros(3))
    assert sorted(pi[0].tolist()) == [0, 0.5, 0.5]


def test_floors_may_add_up_to_exactly_one():
    floors = Dial({}, {"helpful": 0.1, "harmless": 0.2, "honest": 0.7}).floor_vector(AXES)
    pi = mixture_weights(torch.randn(2, 3).double(), torch.ones(2), torch.ones(3), floors)
    torch.testing.assert_close(pi, floors.expand(2, 3))
