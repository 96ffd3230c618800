"""A clip goes on with nobody else when its face is lost and another one is picked."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.faces import Face, FaceDetector
from latentsync.prepare import Align, AlignedSegment, Dropped, Segment
from latentsync.prepare.stage import Source

FPS, SIDE = 25, 128
POINTS = np.array([[20.0, 30.0], [48.7, 30.0], [34.35, 44.0]])  # brows and nose, on the left
TO_THE_RIGHT = np.array([60.0, 0.0])


class Leaving(FaceDetector):
    """Somebody on the left until a frame; somebody on the right all the time.

    The frames are numbered by their level. Who leaves was the larger one.
    """

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves

    def __call__(self, frame: np.ndarray) -> list[Face]:
        left = Face(np.array([8.0, 10, 60, 70]), POINTS, 1.0, "three")
        right = Face(np.array([70.0, 12, 118, 68]), POINTS + TO_THE_RIGHT, 1.0, "three")
        return [left, right] if frame[0, 0, 0] < self.leaves else [right]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        is_left = face.box[0] < 60
        return face if not is_left or frame[0, 0, 0] < self.leaves else None


def aligned(leaves: int, length: int, min_overlap: float) -> list[AlignedSegment | Dropped]:
    stage = Align(
        make_detector=partial(Leaving, leaves), aligner="smooth", resolution=64, fps=FPS,
        min_seconds=2.0, max_seconds=10.0, min_overlap=min_overlap,
    )  # fmt: skip
    frames = [np.full((SIDE, SIDE, 3), level, np.uint8) for level in range(length)]
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    return list(stage.run(Segment(source, 0, 100, iter(frames), torch.zeros(length * 640))))


@pytest.mark.parametrize(
    ("leaves", "start", "length", "parts"),
    [(75, 100, 75, [(175, 220)]), (40, 141, 79, [(100, 141)])],
)
def test_who_is_there_for_too_short_is_listed(
    leaves: int, start: int, length: int, parts: list[tuple[int, int]]
) -> None:
    """The first frame of another person belongs to no clip."""
    made, *rest = aligned(leaves, 120, 0.2)
    assert isinstance(made, AlignedSegment)
    assert (made.start_frame, len(made.faces)) == (start, length)
    listed = [(round(part.start_seconds * FPS), round(part.end_seconds * FPS)) for part in rest]
    assert listed == parts


def test_both_too_short_say_so() -> None:
    (made,) = aligned(45, 90, 0.2)
    assert isinstance(made, Dropped)
    assert made.reason == (
        "no face, or suddenly another, in 1 of 90 frames (first: 45); the longest stretch with one "
        "has 45 frames, 50 are needed"
    )


def test_without_the_measure_both_are_in_one_clip() -> None:
    """What sets of earlier versions hold, and what the measure is for."""
    (made,) = aligned(45, 90, 0.0)
    assert isinstance(made, AlignedSegment)
    assert len(made.faces) == 90


def test_both_who_last_long_enough_are_clips_of_their_own() -> None:
    """Under names of their own; the frame between them is listed."""
    *clips, between = aligned(60, 120, 0.2)
    assert [(clip.start_frame, len(clip.faces)) for clip in clips] == [(100, 60), (161, 59)]
    assert [len(clip.waveform) for clip in clips] == [60 * 640, 59 * 640]
    assert [clip.name for clip in clips] == ["a_000", "a_000_1"]
    assert (round(between.start_seconds * FPS), round(between.end_seconds * FPS)) == (160, 161)
    assert between.reason == "outside the stretches of 50 frames or more with one face"
