"""Questions -> judgements: from the cache where a verdict is kept, else from the judge, several calls at a time."""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.interface import Item, Judge, Judgement
from alignx.evaluate.judging.verdicts import Key, VerdictStore, verdict_key
from alignx.progress import progress

_Batch = list[tuple[Key, Item]]


@dataclass(frozen=True)
class Asked:
    """What came of a list of questions.

    Attributes:
        judgements: one a question, in the order given.
        n_kept: verdicts that the cache had, repeated questions counted once.
        n_asked: questions put to the judge now.
    """

    judgements: list[Judgement]
    n_kept: int
    n_asked: int


def missing_items(judge: Judge, items: Sequence[Item], store: VerdictStore) -> _Batch:
    """Questions without a kept verdict, each once, in order."""
    distinct = {verdict_key(judge, item): item for item in items}
    return [(key, item) for key, item in distinct.items() if store.get(key) is None]


def ask_all(
    judge: Judge, items: Sequence[Item], store: VerdictStore, *, budget: Budget, concurrency: int = 16
) -> Asked:
    """Judge every item; each verdict is kept as soon as it is there.

    Args:
        judge: whom to ask.
        items: the questions; equal ones are asked once.
        store: the cache.
        budget: when it refuses a request, nothing more is asked, and the rest counts as failed.
        concurrency: calls at a time; 1 for judges that are not remote.

    Raises:
        JudgeError: the judge can answer nothing; what was on its way is kept.
        KeyboardInterrupt: the same.
    """
    keys = [verdict_key(judge, item) for item in items]
    found: dict[Key, Judgement] = {}
    missing: dict[Key, Item] = {}
    for key, item in zip(keys, items, strict=True):
        if key in found or key in missing:
            continue
        kept = store.get(key)
        if kept is None:
            missing[key] = item
        else:
            found[key] = kept
    n_kept = len(found)
    batches = _batches(judge, list(missing.items()))

    def record(batch: _Batch, judgements: Sequence[Judgement]) -> None:
        for (key, _), judgement in zip(batch, judgements, strict=True):
            store.put(key, judgement)
            found[key] = judgement

    budget.next_judge()
    if batches:
        _run(judge, batches, record, budget, concurrency if judge.is_remote else 1, len(missing))
    not_asked = Judgement("failed", reason=f"not asked: {budget.refused}")
    n_asked = sum(key in found for key in missing)
    return Asked([found.get(key, not_asked) for key in keys], n_kept, n_asked)


def _batches(judge: Judge, missing: _Batch) -> list[_Batch]:
    """Batches of similar length, longest first, so that padding is short and an out-of-memory shows at once."""
    if judge.batch_size > 1:
        missing = sorted(missing, key=lambda pair: -len(pair[1].prompt) - len(pair[1].answer))
    return [missing[start : start + judge.batch_size] for start in range(0, len(missing), judge.batch_size)]


def _run(
    judge: Judge,
    batches: Sequence[_Batch],
    record: Callable[[_Batch, Sequence[Judgement]], None],
    budget: Budget,
    concurrency: int,
    total: int,
) -> None:
    """Ask batch by batch, `concurrency` of them on their way at once; `record` runs in this thread."""
    done: queue.SimpleQueue[Future[list[Judgement]]] = queue.SimpleQueue()
    on_their_way: dict[Future[list[Judgement]], _Batch] = {}
    todo = iter(batches)
    with ThreadPoolExecutor(concurrency) as pool, progress(f"judge {judge.name}", total) as advance:

        def submit() -> None:
            # A judge on this machine makes no requests: a cap that another has reached is not its own.
            batch = None if judge.is_remote and budget.refused else next(todo, None)
            if batch is not None:
                future = pool.submit(judge.ask, [item for _, item in batch])
                on_their_way[future] = batch
                future.add_done_callback(done.put)

        try:
            for _ in range(concurrency):
                submit()
            while on_their_way:
                future = done.get()
                batch = on_their_way[future]
                record(batch, future.result())
                del on_their_way[future]
                submit()
                advance(len(batch), f"${budget.spent:.2f} so far" if budget.spent else "")
        except BaseException:
            # Calls on their way are paid for: their verdicts are kept before the error goes on.
            judge.stop()
            for future in as_completed(on_their_way):
                if future.exception() is None:
                    record(on_their_way[future], future.result())
            raise
