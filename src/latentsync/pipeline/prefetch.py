"""An iterator that prefetches a bounded number of items in a thread."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


_DONE = object()


def prefetch(items: Iterable[T], depth: int) -> Generator[T]:
    """The same items, produced in a thread at most `depth` items ahead.

    Errors are raised in place of their item. When the reader stops, the thread ends after its
    current item.
    """
    queue: Queue[object] = Queue(maxsize=depth)
    stopped = Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=POLL_SECONDS)
            except Full:
                continue
            return

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put(item)
                del item  # do not keep alive what the reader has dropped
                if stopped.is_set():
                    break
            put(_DONE)
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            put(_Failed(error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        yield from _taken(queue)
    finally:
        stopped.set()
        _drain(queue)
        thread.join()


def _taken(queue: Queue[object]) -> Iterator:
    while True:
        item = queue.get()
        if item is _DONE:
            return
        if isinstance(item, _Failed):
            raise item.error
        yield item
        del item


def _drain(queue: Queue[object]) -> None:
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return
