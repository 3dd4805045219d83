from concurrent.futures import ThreadPoolExecutor

import pytest

from alignx.errors import ConfigError
from alignx.evaluate.judges.budget import Budget


def test_threads_together_get_exactly_the_calls_there_are() -> None:
    budget = Budget(max_calls=50)
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: budget.take(0.0), range(400)))
    assert sum(taken) == budget.n_calls == 50
    assert budget.refused == "--max-calls 50 is reached"


def test_what_is_reserved_is_waited_for_and_counts_until_it_is_settled() -> None:
    budget = Budget(max_cost=1.0)
    assert budget.take(0.6)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(budget.take, 0.6)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)  # the first may yet cost less than it reserved
        budget.settle(0.6, 0.1)
        assert waiting.result(timeout=10)
    assert budget.spent == pytest.approx(0.1)
    budget.settle(0.6, 0.6)
    assert not budget.take(0.6) and budget.refused == "--max-cost 1 would be exceeded"


def test_small_bills_use_a_cap_up_though_every_request_reserves_much() -> None:
    budget = Budget(max_cost=1.0)

    def ask(_: int) -> bool:
        taken = budget.take(0.24)
        if taken:
            budget.settle(0.24, 0.01)
        return taken

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(60))) == 60
    assert budget.spent == pytest.approx(0.6)


def test_a_cap_on_cost_needs_prices() -> None:
    with pytest.raises(ConfigError, match="input_price"):
        Budget(max_cost=1.0).take(None)


def test_no_caps_refuse_nothing() -> None:
    budget = Budget()
    assert all(budget.take(None) for _ in range(100))
    assert budget.refused == ""
