"""The most calls and dollars that judging may take; every request asks here first."""

import threading

from alignx.errors import ConfigError


class Budget:
    """Counts requests and dollars, for several threads at once.

    A request reserves what it may cost at most by our estimate and settles for what the endpoint says it took, mostly
    less. Where only reservations stand in its way, it waits for them to settle. Retries are requests too.

    Args:
        max_calls: requests; none: any number.
        max_cost: US dollars; none: any amount.
    """

    def __init__(self, *, max_calls: int | None = None, max_cost: float | None = None) -> None:
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.n_calls = 0
        self.spent = 0.0
        self.refused = ""
        self._reserved = 0.0
        self._on_their_way = 0
        self._settled = threading.Condition()

    def take(self, estimate: float | None) -> bool:
        """Reserve one request; false when it would exceed a cap, and `refused` then says which.

        Waits while requests on their way may yet cost less than they reserved. Whoever takes must settle.

        Args:
            estimate: dollars it may cost; none when prices are unknown.

        Raises:
            ConfigError: a cap on cost without prices.
        """
        self.check_prices(estimate)
        with self._settled:
            while self._is_dear(estimate) and self._on_their_way:
                self._settled.wait()
            if self.max_calls is not None and self.n_calls >= self.max_calls:
                self.refused = f"--max-calls {self.max_calls} is reached"
            elif self._is_dear(estimate):
                self.refused = f"--max-cost {self.max_cost:g} would be exceeded"
            else:
                self.n_calls += 1
                self._on_their_way += 1
                self._reserved += estimate or 0.0
                return True
            return False

    def check_prices(self, estimate: float | None) -> None:
        """Refuse a cap on cost where a request has no known price.

        Raises:
            ConfigError: it has none.
        """
        if self.max_cost is not None and estimate is None:
            raise ConfigError(
                "--max-cost needs the judge's prices; add --judge-option JUDGE.input_price=... and "
                "JUDGE.output_price=... (US dollars a million tokens)"
            )

    def next_judge(self) -> None:
        """Another judge begins: it may be cheaper than the one whose cost was refused; calls are calls."""
        if self.max_calls is None or self.n_calls < self.max_calls:
            self.refused = ""

    def settle(self, estimate: float | None, cost: float | None) -> None:
        """Replace a reservation by what the request took."""
        with self._settled:
            self._on_their_way -= 1
            self._reserved -= estimate or 0.0
            self.spent += cost or 0.0
            self._settled.notify_all()

    def _is_dear(self, estimate: float | None) -> bool:
        return self.max_cost is not None and self.spent + self._reserved + (estimate or 0.0) > self.max_cost
