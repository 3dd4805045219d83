import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignx.evaluate.judges.retry import guessed_wait, retry_after_seconds

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "600"}, 600),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": format_datetime(NOW + timedelta(minutes=10), usegmt=True)}, 600),
        ({"retry-after": format_datetime(NOW - timedelta(minutes=10), usegmt=True)}, 0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 -0000"}, 30),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Thu, 01 Jan 99999999999999999999 12:00:30 GMT"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_the_servers_word_in_each_of_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now=NOW) == seconds


@given(st.text())
def test_any_header_gives_a_wait_or_none(text: str) -> None:
    seconds = retry_after_seconds({"retry-after": text}, now=NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@given(st.integers(1, 200), st.integers(0, 100))
def test_a_guessed_wait_doubles_up_to_a_minute(attempt: int, seed: int) -> None:
    longest = min(60.0, 2.0 ** (attempt - 1))
    assert longest / 2 <= guessed_wait(attempt, random.Random(seed)) <= longest
