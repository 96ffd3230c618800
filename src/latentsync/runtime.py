"""What a run needs beside its data: a stopwatch, peak memory, freed memory given back, progress."""

import ctypes
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

T = TypeVar("T")
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h of glibc
# Pictures of 1080p and what a network hands on are larger, and are few enough for calls of mmap.
LARGE_BYTES = 4 * 2**20
ARENAS = 2

# stage, done, of how many. It is called after each frame; what it raises ends the run.
ProgressCallback = Callable[[str, int, int], None]
Progress = bool | ProgressCallback


class Stopwatch:
    """Seconds spent in each stage of nested generators; within a thread every moment counts once.

    Threads may share one: each has its own stage, the seconds of all are added up.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._now = _Now()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block to `name`, except what stages inside it charge to themselves."""
        outer = self._now.stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def over(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time to make each is charged to `name`."""
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
    """The stage that a thread is in."""

    stage: str | None = None
    since: float = 0.0


def peak_memory_mib() -> float:
    """The most memory this process has held: since it began, or since `forget_peak_memory`."""
    # A program started by a big one inherits that one's peak in getrusage, but not in /proc.
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def forget_peak_memory() -> bool:
    """Let the peak begin anew, so that each of several jobs has its own; False where it cannot."""
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")  # see proc(5)
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def return_large_blocks() -> bool:
    """For this process from now on; False where malloc is not glibc's.

    Left alone, glibc raises its threshold up to 32 MiB and keeps freed pictures between smaller
    blocks: at 1080p some 200 MB, the more the longer a video is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(M_ARENA_MAX, ARENAS))


class Bar:
    """Counts the frames of a stage and tells it as `progress` says: True is a terminal's bar."""

    def __init__(self, stage: str, total: int, progress: Progress, *, done: int = 0) -> None:
        self.stage, self.total, self.done = stage, total, done
        self.callback = None if isinstance(progress, bool) else progress
        self.bar = tqdm(
            total=total, initial=done, unit="frame", desc=stage, disable=progress is not True
        )

    def update(self) -> None:
        """One frame more."""
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
