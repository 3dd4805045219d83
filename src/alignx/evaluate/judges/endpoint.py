"""One OpenAI-compatible endpoint: requests, what their failures mean, retries by the server's own word.

The client's own retries are off: they stop obeying a server that asks for more than two minutes.
"""

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import tenacity

from alignx.errors import JudgeError
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.interface import Usage
from alignx.evaluate.judges.retry import guessed_wait, retry_after_seconds
from alignx.evaluate.judges.settings import EndpointSettings
from alignx.progress import notice

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

T = TypeVar("T")

_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_TRANSIENT = {408, 409, 425, 429}
_OPTIONS = ("max_completion_tokens", "max_tokens", "temperature", "logprobs")
# A wait this long is worth a line: without one the command looks dead.
_LONG_WAIT_SECONDS = 20.0
# So many judgements in a row given up after all their requests: the endpoint is down, not busy.
_LOST_IN_A_ROW = 20


class CallFailed(Exception):
    """One judgement cannot be had; others may."""


class _Again(Exception):
    """A request that may succeed later.

    Attributes:
        wait_seconds: what the server asks for; none when it does not say.
        may_have_cost: whether the endpoint may have done the work although its answer was lost.
    """

    def __init__(self, reason: str, *, wait_seconds: float | None = None, may_have_cost: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.may_have_cost = may_have_cost


class Endpoint:
    """Sends requests for one judge, from several threads at once.

    Args:
        settings: where it is, its key's variable, its patience and its prices.
        judge: the judge's name, for messages.
        budget: asked before every request.
        sleep: waits some seconds; none: a wait that `stop` ends.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        judge: str,
        budget: Budget,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.settings = settings
        self.judge = judge
        self.budget = budget
        self._stopping = threading.Event()
        self._sleep = sleep or tenacity.sleep_using_event(self._stopping)
        self._rng = random.Random(0)
        self._resume_at = 0.0
        self._closed_until, self._closed = 0.0, ""
        self._lost_in_a_row = 0
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End waits in progress and retry nothing any more."""
        self._stopping.set()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars; none when a price is unknown."""
        prices = self.settings.input_price, self.settings.output_price
        if prices[0] is None or prices[1] is None:
            return None
        return (prompt_tokens * prices[0] + completion_tokens * prices[1]) / 1e6

    def usage(self, reply: object, estimate: Usage) -> Usage:
        """What the endpoint says a reply took; the estimate where it does not say."""
        counted = getattr(reply, "usage", None)
        prompt = getattr(counted, "prompt_tokens", None)
        completion = getattr(counted, "completion_tokens", None)
        prompt = estimate.prompt_tokens if prompt is None else int(prompt)
        completion = estimate.completion_tokens if completion is None else int(completion)
        return Usage(prompt, completion, self.cost(prompt, completion))

    def call(self, create: Callable[["OpenAI"], T], estimate: Usage) -> T:
        """One reply, after as many requests as it takes.

        Args:
            create: makes the request with the client it is given.
            estimate: the most it may take.

        Raises:
            CallFailed: no reply to this one: refused content, a fault that lasted, a cap that is reached.
            JudgeError: the endpoint will answer nothing: key, quota, model, an option, or it is down.
            ConfigError: a cap on cost without prices.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=self._wait,
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.settings.attempts), tenacity.stop_when_event_set(self._stopping)
            ),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            reply: T = retrying(self._attempt, create, estimate)
        except _Again as error:
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= _LOST_IN_A_ROW:
                raise JudgeError(
                    f"judge `{self.judge}`: {self._lost_in_a_row} judgements in a row got no reply (last: {error}); "
                    "verdicts so far are kept, so run the command again when the endpoint answers"
                ) from error
            tries = retrying.statistics.get("attempt_number", 1)
            raise CallFailed(f"{error} (after {tries} requests)") from error
        self._lost_in_a_row = 0
        return reply

    def check(self) -> None:
        """What asking would come to grief on at once.

        Raises:
            JudgeError: the key's variable is not set.
            ConfigError: a cap on cost without prices.
        """
        _ = self.client
        self.budget.check_prices(self.cost(1, 1))

    def _attempt(self, create: Callable[["OpenAI"], T], estimate: Usage) -> T:
        if time.monotonic() < self._closed_until:  # told to come back much later: asking more would be no use
            raise CallFailed(self._closed)
        pause = self._resume_at - time.monotonic()
        if pause > 0:  # another thread was told to wait: asking now would only be told the same
            self._sleep(pause)
        client = self.client
        if not self.budget.take(estimate.cost):
            raise CallFailed(f"not asked: {self.budget.refused}")
        cost: float | None = 0.0
        try:
            reply = create(client)
            cost = self.usage(reply, estimate).cost
            return reply
        except _Again as error:
            cost = estimate.cost if error.may_have_cost else 0.0
            raise
        except Exception as error:  # translated, or raised again as it is
            translated = self._translate(error)
            if isinstance(translated, _Again) and translated.may_have_cost:
                cost = estimate.cost
            raise translated from error
        finally:
            self.budget.settle(estimate.cost, cost)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.wait_seconds if isinstance(error, _Again) else None
        if asked is None:
            return guessed_wait(state.attempt_number, self._rng)
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + asked)
        if asked >= _LONG_WAIT_SECONDS:
            notice(f"{self.judge}: the server asks to wait {asked:.0f} s; waiting (Ctrl-C keeps every verdict)")
        return asked

    @cached_property
    def client(self) -> "OpenAI":
        """The client, made when first needed.

        Raises:
            JudgeError: its key's variable is not set.
        """
        from openai import OpenAI

        variable = self.settings.api_key_env
        key = os.environ.get(variable, "").strip() if variable else "none"
        if not key:
            raise JudgeError(
                f"judge `{self.judge}`: ${variable} is not set; export it, name another variable with "
                f"--judge-option {self.judge}.api_key_env=NAME, or give that option empty for a server without keys"
            )
        return OpenAI(
            api_key=key,
            base_url=self.settings.base_url,
            max_retries=0,
            timeout=self.settings.timeout_seconds,
        )

    def _translate(self, error: Exception) -> Exception:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return _Again(f"no answer within {self.settings.timeout_seconds:g} s", may_have_cost=True)
        if isinstance(error, openai.APIConnectionError):
            cause = " ".join(str(error.__cause__ or error).split())[:120]
            return _Again(f"connection to {self.settings.base_url} failed ({cause})", may_have_cost=True)
        if isinstance(error, openai.APIStatusError):
            return self._translate_status(error)
        if isinstance(error, ValueError):  # a body that is not JSON, or only half of it
            return _Again(f"a damaged reply ({' '.join(str(error).split())[:80]})", may_have_cost=True)
        return error

    def _translate_status(self, error: "APIStatusError") -> Exception:
        status, code = error.status_code, str(error.code or "")
        said = f"HTTP {status}: {' '.join(error.message.split())[:200]}"
        if code in _NO_MONEY:
            return JudgeError(f"judge `{self.judge}`: no quota left ({said}); add credit and run the command again")
        if status in _TRANSIENT or status >= 500:
            wait = retry_after_seconds(error.response.headers, now=datetime.now(UTC))
            if wait is not None and wait > self.settings.max_wait_seconds:
                self._closed_until = time.monotonic() + wait
                self._closed = (
                    f"the server asks to wait {wait:.0f} s, more than {self.judge}.max_wait_seconds "
                    f"({self.settings.max_wait_seconds:g}); run the command again later"
                )
                notice(f"{self.judge}: {self._closed}")
                return CallFailed(self._closed)
            return _Again(said, wait_seconds=wait)
        if status in (401, 403):
            return JudgeError(
                f"judge `{self.judge}`: {self.settings.base_url} refuses the key in ${self.settings.api_key_env} "
                f"({said}); check it, or name another with --judge-option {self.judge}.api_key_env=NAME"
            )
        if status == 404:
            return JudgeError(
                f"judge `{self.judge}`: {self.settings.base_url} does not have it ({said}); check "
                f"--judge-option {self.judge}.model=... and {self.judge}.base_url=..."
            )
        if "content" in code and "filter" in code:
            return CallFailed(f"refused by the endpoint's content filter ({said})")
        option = self._refused_option(error)
        if option:
            return JudgeError(
                f"judge `{self.judge}`: the model refuses `{option}` ({said}); {_remedy(self.judge, option)}"
            )
        return CallFailed(said)

    def _refused_option(self, error: "APIStatusError") -> str:
        if error.status_code not in (400, 422):
            return ""
        named = str(error.param or "")
        return named if named in _OPTIONS else next((name for name in _OPTIONS if f"'{name}'" in error.message), "")


def _remedy(judge: str, option: str) -> str:
    remedies = {
        "temperature": f"add --judge-option {judge}.temperature=null",
        "max_tokens": f"add --judge-option {judge}.token_field=max_completion_tokens",
        "max_completion_tokens": f"add --judge-option {judge}.token_field=max_tokens",
        "logprobs": "this judge needs log-probabilities: take another endpoint, or a local model",
    }
    return remedies[option]


def not_a_reply(reply: object) -> Exception:
    """What to raise for a response that is no completion at all, such as a proxy's page."""
    return _Again(f"a reply that is no completion ({str(reply)[:60]!r})", may_have_cost=True)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text is: four bytes a token, which is near for English."""
    return len(text.encode("utf-8")) // 4 + 1
