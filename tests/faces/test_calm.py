"""Still faces are examined in every other frame only, without loss."""

import cv2
import numpy as np

from faces.dots import DotDetector, LevelLook, draw
from latentsync.faces import Face, three_points
from latentsync.faces.tracking.survey import Survey, survey


class CalmDetector(DotDetector):
    """Counts the frames in which it tracks a face; motion of up to two pixels counts as still."""

    def __init__(self) -> None:
        super().__init__()
        self.num_followed = 0

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        self.num_followed += 1
        return super().refine(frame, face)

    def is_calm(self, before: Face, after: Face) -> bool:
        return bool(np.abs(after.box - before.box).max() <= 2)


def seen(places: list[int], detector: CalmDetector) -> Survey:
    frames = [draw((x, 30, 40, 200)) for x in places]
    return survey(frames, detector, three_points, embedder=LevelLook())


def test_a_steady_face_is_where_it_was_in_every_frame() -> None:
    for num_frames in (30, 31):
        detector = CalmDetector()
        (track,) = seen([20 + index for index in range(num_frames)], detector).tracks
        np.testing.assert_array_equal(track.boxes[:, 0], 20 + np.arange(num_frames))
        assert detector.num_followed < 0.65 * num_frames


def test_a_face_that_starts_moving_is_looked_at_in_the_frame_before_as_well() -> None:
    places = [20] * 15 + [20 + 7 * index for index in range(1, 12)] + [100] * 4
    detector = CalmDetector()
    (track,) = seen(places, detector).tracks
    np.testing.assert_array_equal(track.boxes[:, 0], places)


def test_a_face_that_moves_a_little_more_costs_one_look_per_frame() -> None:
    # Still for ten frames, then three pixels of 40 in every second frame.
    places = [20] * 10 + [20 + 3 * (index // 2) for index in range(1, 21)]
    detector = CalmDetector()
    (track,) = seen(places, detector).tracks
    np.testing.assert_array_equal(track.boxes[:, 0], places)
    assert detector.num_followed < len(places)


def test_a_face_that_goes_in_an_unseen_frame_was_there_until_then() -> None:
    for last in (13, 14):
        frames = [draw((20, 30, 40, 200))] * last + [draw()] * 10
        (track,) = survey(frames, CalmDetector(), three_points, embedder=LevelLook()).tracks
        assert (track.first, track.end) == (0, last)


class Unread:
    """A frame that counts how often it is asked for."""

    def __init__(self, frame: np.ndarray) -> None:
        self.frame, self.shape, self.num_read = frame, frame.shape, 0

    def rgb(self) -> np.ndarray:
        self.num_read += 1
        return self.frame

    def sampled(self, size: tuple[int, int]) -> np.ndarray:
        return cv2.resize(self.frame, size, interpolation=cv2.INTER_NEAREST)


def test_frames_between_calm_ones_are_never_read() -> None:
    frames = [draw((20 + index, 30, 40, 200)) for index in range(41)]
    unread = [Unread(frame) for frame in frames]
    detectors = CalmDetector(), CalmDetector()
    one, other = (
        survey(shown, detector, three_points, embedder=LevelLook())
        for shown, detector in zip((unread, frames), detectors, strict=True)
    )
    assert len(one.tracks) == len(other.tracks) == 1
    np.testing.assert_array_equal(one.tracks[0].points, other.tracks[0].points)
    assert sum(frame.num_read == 0 for frame in unread) > 15
