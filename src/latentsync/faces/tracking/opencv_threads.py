"""OpenCV's threads, of which there is one setting in a process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


class _Blocks:
    """The running blocks, and the setting before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_running = self.num_threads = 0


_blocks = _Blocks()


@contextmanager
def single_opencv_thread() -> Iterator[None]:
    """One OpenCV thread in this process during the block.

    For networks and pictures so small that a second thread, which waits actively, costs CPU time
    and saves none. Blocks of several threads may overlap; the last one restores the setting.
    """
    with _blocks.lock:
        if not _blocks.num_running:
            _blocks.num_threads = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _blocks.num_running += 1
    try:
        yield
    finally:
        with _blocks.lock:
            _blocks.num_running -= 1
            if not _blocks.num_running:
                cv2.setNumThreads(_blocks.num_threads)
