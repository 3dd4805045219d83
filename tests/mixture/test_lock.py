"""Readers share, a writer is alone."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alignx.mixture.lock import ReadWriteLock


def test_a_writer_is_alone_and_readers_are_not() -> None:
    lock, inside, seen = ReadWriteLock(), [], []

    def hold(kind: str) -> None:
        with lock.reading() if kind == "read" else lock.writing():
            inside.append(kind)
            seen.append(sorted(inside))
            time.sleep(0.002)
            inside.remove(kind)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, ["read", "read", "read", "write", "read", "write", "read", "read"] * 6))
    assert all(found == ["write"] or "write" not in found for found in seen)
    assert any(len(found) > 1 for found in seen) and ["write"] in seen


def test_an_error_inside_gives_the_lock_back() -> None:
    lock = ReadWriteLock()
    for held in (lock.writing, lock.reading, lock.writing):
        with pytest.raises(RuntimeError), held():
            raise RuntimeError
