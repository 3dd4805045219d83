"""Win rates: AlpacaEval's published values to the digit, and the edges of fault 24."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.evaluate.statistics.preferences import length_controlled, length_controlled_interval, win_rates

PREFERENCES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40)


@pytest.fixture
def alpaca_eval() -> Path:
    folder = Path(os.environ.get("ALIGNX_DATA_DIR", "")) / "alpaca_eval" / "alpaca-7b"
    if "ALIGNX_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("ALIGNX_DATA_DIR names no folder with alpaca_eval/")
    return folder


@pytest.mark.shared_data
def test_alpaca_eval_2_is_reproduced(alpaca_eval: Path) -> None:
    path = alpaca_eval / "weighted_alpaca_eval_gpt4_turbo" / "annotations.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))
    found = win_rates([row["preference"] - 1 for row in rows])
    assert found.win_rate == pytest.approx(2.591450540223603, abs=1e-9)
    assert found.standard_error == pytest.approx(0.4870855382635108, abs=1e-9)
    assert found.discrete_win_rate == pytest.approx(2.298136645962733, abs=1e-9)
    assert (found.n_wins, found.n_losses, found.n_draws) == (17, 785, 3)


@pytest.mark.shared_data
def test_alpaca_eval_1_is_reproduced(alpaca_eval: Path) -> None:
    rows = json.loads((alpaca_eval / "alpaca_eval_gpt4" / "annotations.json").read_text())
    values = {2: 1.0, 1: 0.0, 0: 0.5}
    found = win_rates([values[int(row["preference"])] for row in rows])
    assert found.win_rate == pytest.approx(26.459627329192543, abs=1e-9)
    assert found.standard_error == pytest.approx(1.535711469748, abs=1e-9)
    assert found.discrete_win_rate == pytest.approx(26.459627329192543, abs=1e-9)
    assert (found.n_wins, found.n_losses, found.n_draws) == (205, 584, 16)


def test_a_small_set_by_hand() -> None:
    found = win_rates([1, 1, 0.5, 0, 0.75])
    assert found.win_rate == pytest.approx(65)
    assert found.discrete_win_rate == pytest.approx(70)
    assert (found.n_wins, found.n_losses, found.n_draws) == (3, 1, 1)
    # Deviations 0.35, 0.35, -0.15, -0.65, 0.1 from the mean 0.65: squares sum to 0.7.
    assert found.standard_error == pytest.approx(100 * (0.7 / 4) ** 0.5 / 5**0.5)


@given(PREFERENCES)
def test_turning_the_pairs_round_turns_the_rate(values: list[float]) -> None:
    ours, theirs = win_rates(values), win_rates([1 - value for value in values])
    assert ours.win_rate + theirs.win_rate == pytest.approx(100)
    assert (ours.n_wins, ours.n_draws) == (theirs.n_losses, theirs.n_draws)


def test_one_pair_has_no_standard_error() -> None:
    assert win_rates([1.0]).standard_error is None


@pytest.mark.parametrize("values", [[], [1.5], [float("nan")], [[1.0]]])
def test_what_is_no_preference_is_refused(values: list) -> None:
    with pytest.raises(ValueError, match="preferences must"):
        win_rates(values)


@given(PREFERENCES)
def test_equal_lengths_change_nothing(values: list[float]) -> None:
    lengths = [40] * len(values)
    assert length_controlled(values, lengths, lengths) == pytest.approx(win_rates(values).win_rate)


@settings(deadline=None)
@given(PREFERENCES, st.integers(0, 2**16))
def test_any_pairs_give_a_rate(values: list[float], seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(0, 500, (2, len(values)))
    rate = length_controlled(values, *lengths)
    low, high = length_controlled_interval(values, *lengths, n_draws=20, seed=0)
    assert 0 <= rate <= 100
    assert 0 <= low <= high <= 100


def test_all_ties_are_a_half_whatever_the_lengths() -> None:
    assert length_controlled([0.5] * 5, [1, 2, 3, 4, 5], [5, 1, 2, 2, 9]) == pytest.approx(50)


@pytest.mark.parametrize(("value", "rate"), [(1.0, 100.0), (0.0, 0.0)])
def test_all_won_or_lost_stays_so(value: float, rate: float) -> None:
    assert length_controlled([value] * 4, [1, 2, 3, 4], [1, 1, 1, 1]) == rate


def test_a_judge_that_only_likes_length_leaves_half_a_win() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(100, 500, 400), rng.integers(0, 400, 400)
    longer = (ours > theirs).astype(float)
    assert win_rates(longer).win_rate > 70
    assert 35 < length_controlled(longer, ours, theirs) < 65


def test_the_fit_is_the_optimum_of_its_loss() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(0, 300, 60), rng.integers(0, 300, 60)
    values = (rng.random(60) < 1 / (1 + np.exp(-(ours - theirs) / 150))).astype(float)
    lean = np.tanh((ours - theirs) / (ours - theirs).std())

    def loss(parameters: np.ndarray) -> float:
        logits = parameters[0] + parameters[1] * lean
        return float(np.mean(np.logaddexp(0, logits) - values * logits) + parameters[1] ** 2 / (2 * 60))

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    assert length_controlled(values, ours, theirs) == pytest.approx(100 / (1 + np.exp(-best[0])), abs=1e-3)
