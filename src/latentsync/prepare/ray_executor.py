"""Run items on a Ray cluster, or on a Ray of this machine; needs the package ray."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

from latentsync.prepare.executors import limit_threads

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

LOCAL_STORE_BYTES = 2**27  # for results, which are small: rows of a manifest


class RayExecutor:
    """Actors that keep their networks, each with `threads_per_worker` CPUs and one item at a time.

    `address`: of a running cluster ("auto": the one of this machine), whose machines see input and
    output under the same paths; None starts Ray here and ends it afterwards. `num_workers`: None
    takes all CPUs. The item of a worker that is lost is given to a new one, `max_retries` times.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        num_workers: int | None = None,
        threads_per_worker: int = 1,
        max_retries: int = 2,
    ) -> None:
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}: give 1 or more, or null for all CPUs")
        self.address = address
        self.num_workers = num_workers
        self.threads_per_worker = threads_per_worker
        self.max_retries = max_retries

    def run(self, make_work: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        with self._connected():
            actor: Any = ray.remote(num_cpus=self.threads_per_worker)(Worker)
            work = ray.put(make_work)
            yield from self._results(
                lambda: actor.remote(work, self.threads_per_worker), iter(items)
            )

    def _results(self, start: Callable[[], ray.actor.ActorHandle], items: Iterator) -> Iterator:
        running: dict[ray.ObjectRef, Running] = {}

        def give(task: Running) -> None:
            running[task.worker.run.remote(task.item)] = task

        try:
            for _, item in zip(range(self._count()), items, strict=False):
                give(Running(start(), item))
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                task = running.pop(done)
                try:
                    result = ray.get(done)
                except ray.exceptions.RayActorError as error:
                    give(self._retried(task, start(), error))
                    continue
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error  # as in this process, for who catches it
                for item in items:
                    give(Running(task.worker, item))
                    break
                yield result
        finally:
            for task in running.values():
                ray.kill(task.worker)

    def _retried(
        self, task: "Running", worker: ray.actor.ActorHandle, error: Exception
    ) -> "Running":
        """The same item for another worker; OSError if it has cost too many."""
        if task.lost == self.max_retries:
            raise OSError(
                f"{task.lost + 1} workers were lost at {task.item} (out of memory?): run the same "
                "command again to go on, with fewer workers if need be"
            ) from error
        logger.warning("a worker was lost at %s, which is tried again", task.item)
        return Running(worker, task.item, task.lost + 1)

    def _count(self) -> int:
        available = int(ray.cluster_resources().get("CPU", 1) // self.threads_per_worker)
        return max(self.num_workers or available, 1)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        if self.address is None:
            count = self.num_workers
            ray.init(
                num_cpus=None if count is None else count * self.threads_per_worker,
                object_store_memory=LOCAL_STORE_BYTES,
                include_dashboard=False,
                logging_level=logging.WARNING,
            )
        else:
            ray.init(address=self.address, logging_level=logging.WARNING)
        try:
            yield
        finally:
            ray.shutdown()


@dataclass(frozen=True, slots=True)
class Running(Generic[T]):
    """An item given to a worker, and how many workers were lost at it before."""

    worker: ray.actor.ActorHandle
    item: T
    lost: int = 0


class Worker(Generic[T, R]):
    """The work, made once in the process of an actor."""

    def __init__(self, make_work: Callable[[], Callable[[T], R]], num_threads: int) -> None:
        limit_threads(num_threads)
        self.work = make_work()

    def run(self, item: T) -> R:
        return self.work(item)
