"""Runtime utilities: stopwatch, peak memory, memory release, progress, prefetching."""

import ctypes
import resource
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

T = TypeVar("T")
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h of glibc
# 1080p frames and activations are larger, and few enough for mmap calls.
LARGE_BYTES = 4 * 2**20
ARENAS = 2

POLL_SECONDS = 0.1  # of a prefetching thread

# (stage, frames done, total frames), called after each frame; exceptions end the run.
ProgressCallback = Callable[[str, int, int], None]
Progress = bool | ProgressCallback


class Stopwatch:
    """Seconds per stage of nested generators; per thread, stages never overlap.

    Threads may share one: each has its own current stage, the seconds are summed.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._now = _Now()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block to `name`, except for nested stages."""
        outer = self._now.stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def over(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time to produce each is charged to `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _switch(self, name: str | None) -> None:
        mine, now = self._now, time.perf_counter()
        if mine.stage is not None:
            with self._lock:
                spent = self.seconds.get(mine.stage, 0.0)
                self.seconds[mine.stage] = spent + now - mine.since
        mine.stage, mine.since = name, now


class _Now(threading.local):
    """The current stage of a thread."""

    stage: str | None = None
    since: float = 0.0


def peak_memory_mib() -> float:
    """Peak memory of this process, since its start or the last `forget_peak_memory`."""
    # getrusage inherits the peak of a large parent process, /proc does not.
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def forget_peak_memory() -> bool:
    """Reset the peak, so that each of several jobs has its own; False if unsupported."""
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")  # see proc(5)
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def return_large_blocks() -> bool:
    """Make malloc return large blocks to the system; False if it is not glibc's.

    By default glibc raises its threshold to 32 MiB and keeps freed frames between smaller blocks:
    at 1080p some 200 MB, more for longer videos.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(M_ARENA_MAX, ARENAS))


class Bar:
    """Reports the frames of a stage to `progress`; True shows a terminal progress bar."""

    def __init__(self, stage: str, total: int, progress: Progress, *, done: int = 0) -> None:
        self.stage, self.total, self.done = stage, total, done
        self.callback = None if isinstance(progress, bool) else progress
        self.bar = tqdm(
            total=total, initial=done, unit="frame", desc=stage, disable=progress is not True
        )

    def update(self) -> None:
        """Count one frame."""
        self.done += 1
        self.bar.update()
        if self.callback is not None:
            self.callback(self.stage, self.done, self.total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()


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
    stopped = threading.Event()

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

    thread = threading.Thread(target=work, name="ahead", daemon=True)
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
