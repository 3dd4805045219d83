"""When to ask an endpoint again, and how long to wait before it: by the server's own word where it gives one."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT_SECONDS = 1.0
LONGEST_GUESS_SECONDS = 60.0


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """How long a server asks to wait; none when it does not say, or not readably.

    Args:
        headers: of the response; names in lower case, or a mapping that does not care.
        now: the time, aware of its zone; a `Retry-After` date is taken against it.

    Returns:
        Seconds, 0 or more.

    Source: RFC 9110 section 10.2.3; `retry-after-ms` is what OpenAI's servers send beside it.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):  # all of which odd dates have raised
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def guessed_wait(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after the given attempt (1, 2, ...) when the server says nothing: doubling, with jitter."""
    longest: float = min(LONGEST_GUESS_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
    return longest * rng.uniform(0.5, 1.0)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
