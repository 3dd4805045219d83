"""Asking many questions: each once, several at a time, and only the missing ones again. Fault 23, second half."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.errors import JudgeError
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.interface import SAFETY, Item, Judgement, Usage
from alignx.evaluate.judging.asking import ask_all, missing_items
from alignx.evaluate.judging.verdicts import VerdictStore

ITEMS = [Item(SAFETY, f"prompt {number}", "answer") for number in range(30)]


class Counting:
    """A judge that notes what it is asked; `trouble` maps a prompt to what happens instead of a verdict."""

    name, model = "counting", "m"

    def __init__(self, *, batch_size: int = 1, is_remote: bool = True, trouble: dict | None = None) -> None:
        self.batch_size, self.is_remote, self.trouble = batch_size, is_remote, trouble or {}
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.stopped = False
        self._lock = threading.Lock()

    def questions(self, dataset: str) -> Sequence[str]:
        return (SAFETY,)

    def template(self, question: str) -> str:
        return question

    def estimate(self, item: Item) -> Usage:
        return Usage(1, 1, 0.0)

    def stop(self) -> None:
        self.stopped = True

    def ask(self, items: Sequence[Item]) -> list[Judgement]:
        with self._lock:
            self.asked += [item.prompt for item in items]
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.005)
        with self._lock:
            self.at_once -= 1
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Judgement:
        found = self.trouble.get(item.prompt)
        if isinstance(found, BaseException):
            raise found
        return found or Judgement("judged", float(len(item.prompt) % 2))


@pytest.fixture
def store(tmp_path: Path):
    with VerdictStore(tmp_path / "v.sqlite") as opened:
        yield opened


@pytest.mark.parametrize(("batch_size", "is_remote"), [(1, True), (7, False), (7, True)])
def test_judgements_come_in_the_order_of_the_questions(store: VerdictStore, batch_size: int, is_remote: bool) -> None:
    judge = Counting(batch_size=batch_size, is_remote=is_remote)
    asked = ask_all(judge, [*ITEMS, *ITEMS[:5]], store, budget=Budget())
    assert [judgement.value for judgement in asked.judgements[:30]] == [len(item.prompt) % 2 for item in ITEMS]
    assert asked.judgements[30:] == asked.judgements[:5]
    assert sorted(judge.asked) == sorted(item.prompt for item in ITEMS)
    assert (asked.n_asked, asked.n_kept) == (30, 0)


def test_remote_calls_run_together_up_to_the_limit_and_local_ones_alone(store: VerdictStore) -> None:
    remote, local = Counting(), Counting(is_remote=False)
    ask_all(remote, ITEMS, store, budget=Budget(), concurrency=8)
    assert 2 <= remote.most_at_once <= 8
    local.name = "local"
    ask_all(local, ITEMS, store, budget=Budget(), concurrency=8)
    assert local.most_at_once == 1


@settings(max_examples=20, deadline=None)
@given(k=st.integers(0, 30))
def test_after_k_verdicts_exactly_the_others_are_asked(tmp_path_factory: pytest.TempPathFactory, k: int) -> None:
    with VerdictStore(tmp_path_factory.mktemp("k") / "v.sqlite") as store:
        ask_all(Counting(), ITEMS[:k], store, budget=Budget())
        judge = Counting()
        assert len(missing_items(judge, ITEMS, store)) == 30 - k
        assert ask_all(judge, ITEMS, store, budget=Budget()).n_kept == k
        assert sorted(judge.asked) == sorted(item.prompt for item in ITEMS[k:])


def test_what_failed_or_was_unreadable_is_asked_again_and_verdicts_are_not(store: VerdictStore) -> None:
    trouble = {"prompt 3": Judgement("failed", reason="x"), "prompt 8": Judgement("unparseable", reason="y")}
    first = ask_all(Counting(trouble=trouble), ITEMS, store, budget=Budget())
    assert [judgement.state for judgement in first.judgements].count("judged") == 28
    again = Counting()
    second = ask_all(again, ITEMS, store, budget=Budget())
    assert sorted(again.asked) == ["prompt 3", "prompt 8"]
    assert all(judgement.state == "judged" for judgement in second.judgements)


def test_a_judge_that_can_answer_nothing_stops_and_keeps_what_was_had(store: VerdictStore) -> None:
    judge = Counting(trouble={"prompt 10": JudgeError("no key")})
    with pytest.raises(JudgeError, match="no key"):
        ask_all(judge, ITEMS, store, budget=Budget(), concurrency=4)
    assert judge.stopped
    assert len(judge.asked) < 30
    kept = 30 - len(missing_items(judge, ITEMS, store))
    # Every call that was answered is kept: all that were made but the one that failed.
    assert kept == len(judge.asked) - 1


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises, also where a shell that started pytest in the background lets it be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_the_calls_on_their_way_and_the_rerun_makes_the_others(store: VerdictStore) -> None:
    judge = Counting()
    original = judge.ask

    def ask(items: Sequence[Item]) -> list[Judgement]:
        if items[0].prompt == "prompt 12":
            os.kill(os.getpid(), signal.SIGINT)
        return original(items)

    judge.ask = ask  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ask_all(judge, ITEMS, store, budget=Budget(), concurrency=4)
    assert judge.stopped
    assert len(judge.asked) < 30
    again = Counting()
    ask_all(again, ITEMS, store, budget=Budget())
    assert sorted([*judge.asked, *again.asked]) == sorted(item.prompt for item in ITEMS)


def test_nothing_to_ask_is_no_trouble(store: VerdictStore) -> None:
    assert ask_all(Counting(), [], store, budget=Budget()).judgements == []


def test_a_reached_cap_stops_remote_judges_and_not_local_ones(store: VerdictStore) -> None:
    budget = Budget(max_calls=0)
    assert not budget.take(0.0)
    remote, local = Counting(), Counting(is_remote=False)
    found = ask_all(remote, ITEMS, store, budget=budget)
    assert remote.asked == []
    assert {judgement.reason for judgement in found.judgements} == {"not asked: --max-calls 0 is reached"}
    assert all(judgement.state == "judged" for judgement in ask_all(local, ITEMS, store, budget=budget).judgements)
