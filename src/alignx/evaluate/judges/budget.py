"""The most calls and dollars that judging may take; every request asks here first."""

import threading

from alignx.errors import ConfigError


class Budget:
    """Counts requests and dollars, for several threads at once.

    A request reserves what it may cost at most by our estimate and settles for what the endpoint says it took. Retries
    are requests too.

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
        self._lock = threading.Lock()

    def take(self, estimate: float | None) -> bool:
        """Reserve one request; false when it would exceed a cap, and `refused` then says which.

        Args:
            estimate: dollars it may cost; none when prices are unknown.

        Raises:
            ConfigError: a cap on cost without prices.
        """
        with self._lock:
            if self.max_cost is not None and estimate is None:
                raise ConfigError(
                    "--max-cost needs the judge's prices; add --judge-option JUDGE.input_price=... and "
                    "JUDGE.output_price=... (US dollars a million tokens)"
                )
            if self.max_calls is not None and self.n_calls >= self.max_calls:
                self.refused = f"--max-calls {self.max_calls} is reached"
            elif self.max_cost is not None and self.spent + self._reserved + (estimate or 0.0) > self.max_cost:
                self.refused = f"--max-cost {self.max_cost:g} would be exceeded"
            else:
                self.n_calls += 1
                self._reserved += estimate or 0.0
                return True
            return False

    def settle(self, estimate: float | None, cost: float | None) -> None:
        """Replace a reservation by what the request took."""
        with self._lock:
            self._reserved -= estimate or 0.0
            self.spent += cost or 0.0
