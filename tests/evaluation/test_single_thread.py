"""One thread of torch and OpenCV in a block, and the settings back after it, even after errors."""

import cv2
import pytest
import torch

from latentsync.evaluation.single_thread import single_thread


def test_one_thread_inside_and_the_setting_back_after_an_error() -> None:
    before = (torch.get_num_threads(), cv2.getNumThreads())
    torch.set_num_threads(3)
    cv2.setNumThreads(3)
    try:
        with pytest.raises(KeyError), single_thread(), single_thread():
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
            raise KeyError
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
