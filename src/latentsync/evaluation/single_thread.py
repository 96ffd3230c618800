"""One thread for small networks and pictures, whose other threads cost CPU time and save none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from latentsync.faces.tracking.opencv_threads import single_opencv_thread


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread of torch and of OpenCV during the block; what is computed in it does not depend
    on how many the machine has. For the main thread, as torch has one setting in a process."""
    num_threads = torch.get_num_threads()
    with single_opencv_thread():
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)
