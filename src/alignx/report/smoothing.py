"""Smoothing of training curves."""

import math
from collections.abc import Sequence


def smoothing_window(n_steps: int) -> int:
    """Steps that the line of a training curve averages: about a tenth of the run, an odd number."""
    return max(1, n_steps // 20 * 2 + 1)


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Centred moving average; the window is cut at both ends, so as many values come out as go in.

    Raises:
        ValueError: window < 1.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}.")
    before, after = (window - 1) // 2, window // 2
    parts = [values[max(0, at - before) : at + after + 1] for at in range(len(values))]
    return [math.fsum(part) / len(part) for part in parts]
