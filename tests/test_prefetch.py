"""Prefetching in a thread: order, bound, errors, and its end."""

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing

import pytest

from latentsync.runtime import prefetch


class Thing:
    pass


def wait_until(true: object) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never became true")


def test_the_same_items_in_the_same_order():
    assert list(prefetch(range(1000), 3)) == list(range(1000))


@pytest.mark.parametrize("depth", [1, 4])
def test_it_is_as_far_ahead_as_allowed_and_no_further(depth: int):
    made = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    with closing(prefetch(items(), depth)) as stream:
        assert next(stream) == 0
        # One is consumed, `depth` are queued, one is being produced.
        wait_until(lambda: len(made) == depth + 2)
        time.sleep(0.3)
        assert len(made) == depth + 2
        assert next(stream) == 1
        wait_until(lambda: len(made) == depth + 3)


def test_what_the_reader_dropped_is_gone():
    alive = weakref.WeakSet()

    def items() -> Iterator[Thing]:
        for _ in range(50):
            thing = Thing()
            alive.add(thing)
            yield thing
            del thing

    most = 0
    for _ in prefetch(items(), 2):
        most = max(most, len(alive))
    assert most <= 2 + 3


def test_an_error_comes_where_its_item_would_have_come():
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    got = []
    with pytest.raises(ValueError, match="the third"):
        got.extend(prefetch(items(), 5))
    assert got == [1, 2]


def test_the_thread_ends_with_its_reader_and_closes_what_it_read():
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            item = 0
            while True:
                yield item
                item += 1
        finally:
            closed.set()

    before = threading.active_count()
    with closing(prefetch(endless(), 2)) as stream:
        assert next(stream) == 0
    assert closed.is_set()
    assert threading.active_count() == before
