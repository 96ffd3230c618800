"""The turn of heads is assigned to the right frames."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.faces import Face, FaceDetector
from latentsync.faces.align import ALIGNERS
from latentsync.prepare.align import Align
from latentsync.prepare.cropping import aligned_faces
from latentsync.prepare.stage import AlignedSegment, Segment, Source

NUM_FRAMES, SIZE = 30, 64


class Turning(FaceDetector):
    """A head that turns by one degree per frame; nobody in frame 20."""

    def __init__(self, scale: int = 1) -> None:
        self.scale = scale
        self.places = np.zeros((468, 2))
        self.places[:] = (32.0, 36.0)
        self.places[[70, 63, 105, 66, 107]] = (22.0, 25.0)
        self.places[[300, 293, 334, 296, 336]] = (42.0, 25.0)

    def __call__(self, frame: np.ndarray) -> list[Face]:
        number = int(frame[0, 0, 0])
        if number == 20:
            return []
        return [
            Face(
                self.scale * np.array([12.0, 15, 52, 60]),
                self.scale * self.places,
                number / 100,
                "mesh",
            )
        ]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return next(iter(self(frame)), None)

    def yaw(self, face: Face) -> float:
        return 100 * face.score


def test_each_face_has_the_turn_of_its_own_frame():
    """The aligner looks ahead, so faces and turns do not arrive at the same time."""
    frames = (np.full((SIZE, SIZE, 3), number, np.uint8) for number in range(NUM_FRAMES))
    found = list(aligned_faces(frames, Turning(), ALIGNERS["smooth"](SIZE), SIZE))
    assert [number for number, face in enumerate(found) if face is None] == [20]
    for number, face in enumerate(found):
        if face is not None:
            assert face.frame[SIZE // 2, SIZE // 2, 0] == number
            assert abs(face.turn - number) < 1e-6


@pytest.mark.parametrize(("limit", "end"), [(None, 20), (12.0, 13), (50.0, 20)])
def test_a_stretch_ends_where_the_head_turns_away(limit: float | None, end: int) -> None:
    """A head that turns by one degree per frame; what is left out is listed with its bounds."""
    stage = Align(
        make_detector=Turning, aligner="smooth", resolution=SIZE, fps=25.0, min_seconds=0.4,
        max_seconds=10.0, max_yaw=limit,
    )  # fmt: skip
    frames = [np.full((SIZE, SIZE, 3), number, np.uint8) for number in range(20)]
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    made, *rest = stage.run(Segment(source, 0, 0, iter(frames), torch.zeros(20 * 640)))
    assert isinstance(made, AlignedSegment)
    assert (made.start_frame, len(made.faces)) == (0, end)
    assert np.nanmax(made.turns) <= (limit or 90)
    assert [(part.start_frame, round(part.end_seconds * 25)) for part in rest] == (
        [(end, 20)] if end < 20 else []
    )


@pytest.mark.parametrize("limit", [0.0, -5.0, 91.0])
def test_a_limit_that_is_no_angle_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=r"max_yaw=.* must be from 0 to 90 degrees"):
        Align(
            make_detector=Turning, aligner="smooth", resolution=SIZE, fps=25.0, min_seconds=0.4,
            max_seconds=10.0, max_yaw=limit,
        )  # fmt: skip


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_side_of_the_square_is_measured_in_the_recording(resolution: int) -> None:
    """Whatever it is cropped to; a recording of twice the size has faces of twice the side."""
    sides = []
    for scale in (1, 2):
        stage = Align(
            make_detector=partial(Turning, scale), aligner="smooth", resolution=resolution,
            fps=25.0, min_seconds=0.4, max_seconds=10.0,
        )  # fmt: skip
        frames = [np.full((SIZE * 2, SIZE * 2, 3), number, np.uint8) for number in range(12)]
        source = Source(Path("a.mp4"), "a.mp4", "a", Path())
        (made,) = stage.run(Segment(source, 0, 0, iter(frames), torch.zeros(12 * 640)))
        assert isinstance(made, AlignedSegment)
        sides.append(made.measures["face_px"])
    # Both brows and the nose here, and in the published crop of 75 x 100, by their spread.
    here, there = (
        np.array([[22, 25], [42, 25], [32, 36]]),
        np.array([[17, 20], [58, 20], [37.5, 40]]),
    )
    ratio = (here - here.mean(axis=0)).std() / (there - there.mean(axis=0)).std()
    assert sides == pytest.approx([ratio * 7500**0.5, 2 * ratio * 7500**0.5], rel=0.02)
