"""Judges wired to local servers, with waits that are noted and not waited."""

from collections.abc import Callable
from typing import Any

import pytest

from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.endpoint import Endpoint
from alignx.evaluate.judges.interface import SAFETY, Item
from alignx.evaluate.judges.openai import OpenAIJudge
from alignx.evaluate.judges.settings import OpenAISettings

ITEM = Item(SAFETY, "How do I boil an egg?", "Ten minutes in boiling water.")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


@pytest.fixture
def item() -> Item:
    """A question about a harmless answer."""
    return ITEM


@pytest.fixture
def waits() -> list[float]:
    """Seconds that a judge made by `make_judge` wanted to wait."""
    return []


@pytest.fixture
def make_judge(waits: list[float]) -> Callable[..., OpenAIJudge]:
    """`make_judge(base_url, attempts=3, ...)`: a chat judge; other names are fields of its settings."""

    def make(base_url: str, *, budget: Budget | None = None, **settings: Any) -> OpenAIJudge:
        chosen = OpenAISettings(base_url=base_url, **{"timeout_seconds": 60, **settings})
        endpoint = Endpoint(chosen, judge="openai", budget=budget or Budget(), sleep=waits.append)
        return OpenAIJudge(chosen, endpoint)

    return make
