"""What an endpoint's failures mean, against real local servers: faults 19, 20 and 22."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from alignx.errors import JudgeError
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.interface import Item
from alignx.evaluate.judges.openai import OpenAIJudge
from judge_server import CHAT, Asked, failure, http_bytes, raw_server, verdict

Make = Callable[..., OpenAIJudge]


@pytest.mark.parametrize(
    ("said", "low", "high"), [("7", 7, 7), ("600", 600, 600), ("soon", 0.5, 1.0), (None, 0.5, 1.0), ("-1", 0.5, 1.0)]
)
def test_429_is_asked_again_when_the_server_says(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item, said: str | None, low: float, high: float
) -> None:
    headers = {} if said is None else {"Retry_After": said}
    asked = Asked(httpserver, [failure(429, **headers), verdict("safe")], CHAT)
    [judgement] = make_judge(asked.base_url).ask([item])
    assert judgement.state == "judged"
    assert asked.count == 2
    assert low <= waits[0] <= high


def test_429_with_a_date_is_asked_again_after_it(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item
) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    asked = Asked(httpserver, [failure(429, Retry_After=moment), verdict("safe")], CHAT)
    assert make_judge(asked.base_url).ask([item])[0].state == "judged"
    assert 30 <= waits[0] <= 90


def test_a_wait_beyond_patience_fails_without_a_second_request(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item
) -> None:
    asked = Asked(httpserver, [failure(429, Retry_After="3600"), verdict("safe")], CHAT)
    [judgement] = make_judge(asked.base_url).ask([item])
    assert judgement.state == "failed"
    assert "more than openai.max_wait_seconds (900)" in judgement.reason
    assert (asked.count, waits) == (1, [])


def test_a_server_that_says_much_later_is_not_asked_again_meanwhile(
    httpserver: HTTPServer, make_judge: Make, item: Item
) -> None:
    asked = Asked(httpserver, [failure(429, Retry_After="3600"), verdict("safe")], CHAT)
    judge = make_judge(asked.base_url)
    reasons = [judge.ask([item])[0].reason for _ in range(5)]
    assert asked.count == 1 and len(set(reasons)) == 1 and "run the command again later" in reasons[0]


def test_what_one_call_is_told_to_wait_the_others_wait_too(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item
) -> None:
    asked = Asked(httpserver, [failure(429, Retry_After="600"), verdict("safe")], CHAT)
    judge = make_judge(asked.base_url)
    judge.ask([item])
    waits.clear()
    judge.ask([item])
    assert 500 <= waits[0] <= 600


@pytest.mark.parametrize("status", [408, 500, 502, 503, 529])
def test_server_errors_are_asked_again_with_growing_waits(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item, status: int
) -> None:
    asked = Asked(httpserver, [failure(status), failure(status), failure(status), verdict("unsafe")], CHAT)
    [judgement] = make_judge(asked.base_url).ask([item])
    assert (judgement.state, judgement.value) == ("judged", 1.0)
    assert asked.count == 4
    assert [0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits)] == [True] * 3


def test_attempts_end_and_the_judgement_has_failed(httpserver: HTTPServer, make_judge: Make, item: Item) -> None:
    asked = Asked(httpserver, [failure(503, message="overloaded")], CHAT)
    [judgement] = make_judge(asked.base_url, attempts=3).ask([item])
    assert judgement.state == "failed"
    assert judgement.reason.startswith("HTTP 503: ")
    assert judgement.reason.endswith("(after 3 requests)")
    assert asked.count == 3


GOOD = (
    b'{"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [{"index": 0, '
    b'"finish_reason": "stop", "message": {"role": "assistant", "content": "safe"}}]}'
)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="reset"),
        pytest.param(http_bytes(GOOD[:40], length=len(GOOD)), id="half a body"),
        pytest.param(http_bytes(GOOD[:40]), id="half a body of the right length"),
        pytest.param(http_bytes(b"<html>busy</html>", kind="html"), id="a page"),
        pytest.param(b"HTTP/1.1 200", id="half a head"),
    ],
)
def test_a_lost_reply_is_asked_for_again(make_judge: Make, item: Item, broken: bytes) -> None:
    with raw_server(broken, broken, http_bytes(GOOD)) as (base_url, requests):
        [judgement] = make_judge(base_url).ask([item])
    assert (judgement.state, judgement.value) == ("judged", 0.0)
    assert len(requests) == 3


def test_a_lost_reply_counts_as_paid(make_judge: Make, item: Item) -> None:
    budget = Budget()
    with raw_server(b"", http_bytes(GOOD)) as (base_url, _):
        judge = make_judge(base_url, budget=budget, input_price=1e6, output_price=0)
        judge.ask([item])
    # One reply lost, one without usage: both at the estimate, one dollar a token.
    assert budget.spent == pytest.approx(2 * judge.estimate(item).prompt_tokens)
    assert budget.n_calls == 2


def test_silence_ends_at_the_timeout(httpserver: HTTPServer, make_judge: Make, item: Item) -> None:
    def slow(body: dict) -> Response:
        time.sleep(1.0)
        return Response("{}")

    asked = Asked(httpserver, slow, CHAT)
    [judgement] = make_judge(asked.base_url, timeout_seconds=0.1, attempts=1).ask([item])
    assert judgement.state == "failed"
    assert "no answer within 0.1 s" in judgement.reason


def test_nobody_there_fails_and_a_row_of_failures_stops(make_judge: Make, item: Item) -> None:
    judge = make_judge("http://127.0.0.1:9/v1", attempts=1)
    assert judge.ask([item])[0].state == "failed"
    with pytest.raises(JudgeError, match="20 judgements in a row got no reply"):
        for _ in range(20):
            judge.ask([item])


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (failure(401, message="bad key"), "refuses the key in $OPENAI_API_KEY"),
        (failure(403, message="no access"), "refuses the key in $OPENAI_API_KEY"),
        (failure(404, message="no such model"), "--judge-option openai.model="),
        (failure(429, code="insufficient_quota"), "no quota left"),
    ],
)
def test_what_no_call_can_overcome_stops_at_the_first(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item, reply: Response, says: str
) -> None:
    asked = Asked(httpserver, [reply], CHAT)
    with pytest.raises(JudgeError) as caught:
        make_judge(asked.base_url).ask([item])
    assert says in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert (asked.count, waits) == (1, [])


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (failure(400, message="too long"), "too long"),
        (failure(400, code="content_filter"), "content filter"),
        (failure(422, message="odd"), "odd"),
    ],
)
def test_what_only_this_call_meets_fails_it_without_a_retry(
    httpserver: HTTPServer, make_judge: Make, waits: list[float], item: Item, reply: Response, says: str
) -> None:
    asked = Asked(httpserver, [reply, verdict("safe")], CHAT)
    judge = make_judge(asked.base_url)
    [judgement] = judge.ask([item])
    assert judgement.state == "failed"
    assert says in judgement.reason
    assert (asked.count, waits) == (1, [])
    assert judge.ask([item])[0].state == "judged"


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        (failure(400, param="temperature", message="no temperature"), "openai.temperature=null"),
        (
            failure(400, message="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
            "openai.token_field=max_",
        ),
        (failure(400, param="max_completion_tokens"), "openai.token_field=max_tokens"),
    ],
)
def test_a_refused_option_stops_and_names_its_remedy(
    httpserver: HTTPServer, make_judge: Make, item: Item, reply: Response, remedy: str
) -> None:
    asked = Asked(httpserver, [reply], CHAT)
    with pytest.raises(JudgeError) as caught:
        make_judge(asked.base_url).ask([item])
    assert f"--judge-option {remedy}" in str(caught.value)
    assert asked.count == 1


def test_the_remedies_change_what_is_sent(httpserver: HTTPServer, make_judge: Make, item: Item) -> None:
    asked = Asked(httpserver, [verdict("safe")], CHAT)
    make_judge(asked.base_url).ask([item])
    make_judge(asked.base_url, temperature=None, token_field="max_completion_tokens", max_tokens=900).ask([item])
    plain, changed = asked.bodies
    assert (plain["temperature"], plain["max_tokens"]) == (0.0, 64)
    assert "temperature" not in changed
    assert "max_tokens" not in changed
    assert changed["max_completion_tokens"] == 900


def test_a_cap_on_calls_counts_retries(httpserver: HTTPServer, make_judge: Make, item: Item) -> None:
    asked = Asked(httpserver, [failure(500)], CHAT)
    [judgement] = make_judge(asked.base_url, budget=Budget(max_calls=2)).ask([item])
    assert judgement.reason == "not asked: --max-calls 2 is reached"
    assert asked.count == 2


def test_a_stop_ends_a_wait_in_progress(httpserver: HTTPServer, item: Item) -> None:
    import threading

    from alignx.evaluate.judges.endpoint import Endpoint
    from alignx.evaluate.judges.settings import OpenAISettings

    asked = Asked(httpserver, [failure(429, Retry_After="600")], CHAT)
    settings = OpenAISettings(base_url=asked.base_url)
    judge = OpenAIJudge(settings, Endpoint(settings, judge="openai", budget=Budget()))
    threading.Timer(0.3, judge.stop).start()
    started = time.monotonic()
    [judgement] = judge.ask([item])
    assert time.monotonic() - started < 300
    assert judgement.state == "failed"
