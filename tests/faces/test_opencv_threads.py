from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import numpy as np
import pytest

from faces.dots import DotDetector, LevelLook, draw
from latentsync.faces import three_points
from latentsync.faces.tracking.opencv_threads import single_opencv_thread
from latentsync.faces.tracking.survey import survey


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_a_survey_uses_one_thread_and_restores_the_setting() -> None:
    seen = []

    def frames() -> Iterator[np.ndarray]:
        for _ in range(10):
            seen.append(cv2.getNumThreads())
            yield draw((20, 30, 40, 200))

    survey(frames(), DotDetector(), three_points, embedder=LevelLook())
    assert seen == [1] * 10
    assert cv2.getNumThreads() == 2


def test_overlapping_blocks_restore_what_was_before_the_first() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(single_opencv_thread())
    second.enter_context(single_opencv_thread())
    first.close()
    assert cv2.getNumThreads() == 1
    second.close()
    assert cv2.getNumThreads() == 2


def test_an_error_restores_the_setting() -> None:
    with pytest.raises(RuntimeError, match="frame"), single_opencv_thread():
        raise RuntimeError("frame")
    assert cv2.getNumThreads() == 2
