"""Executors: run items in this process, or in several on this machine; `ray_executor` on others."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection
from typing import Protocol, TypeVar, runtime_checkable

import cv2
import torch

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
IN_FLIGHT_PER_WORKER = 4


@runtime_checkable
class Executor(Protocol):
    """Calls a function on items; `make_work` creates the function, once per process."""

    def run(self, make_work: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        """The results, in order of completion."""


class SerialExecutor:
    """One item after the other, in this process."""

    def run(self, make_work: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        yield from map(make_work(), items)


class LocalExecutor:
    """Several processes on this machine, each with `threads_per_worker` threads."""

    def __init__(self, *, num_workers: int = 2, threads_per_worker: int = 1) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}: give 1 or more, or executor=serial")
        self.num_workers = num_workers
        self.threads_per_worker = threads_per_worker

    def run(self, make_work: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        waiting = iter(items)
        with ProcessPoolExecutor(
            self.num_workers,
            # Forking a process with threads (OpenCV, torch) can hang.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(make_work, self.threads_per_worker),
        ) as pool:
            try:
                with limited_threads(self.threads_per_worker):
                    first = islice(waiting, IN_FLIGHT_PER_WORKER * self.num_workers)
                    running: set[Future] = {pool.submit(_work, item) for item in first}
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(_work, item) for item in islice(waiting, len(done))}
                    for future in done:
                        yield future.result()
            except BrokenProcessPool as error:
                raise OSError(
                    "a worker process died (out of memory?); run the same command again to go "
                    "on, with fewer workers if need be"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """Sets the number of threads for processes started inside, by environment variables."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(num_threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def limit_threads(num_threads: int) -> None:
    """Sets the number of threads of the libraries in this process."""
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)


_state: dict[str, Callable] = {}


def _start_worker(make_work: Callable[[], Callable], num_threads: int) -> None:
    # Ctrl-C reaches all processes; the parent lets running items finish and starts no more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _state["work"] = make_work()


def _work(item: object) -> object:
    return _state["work"](item)


def _end_with_parent() -> None:
    """Exit when the parent is killed, as workers would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
