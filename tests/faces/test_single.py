import numpy as np
import pytest

from faces.dots import DotDetector, draw
from latentsync.faces import (
    Face,
    FaceDetector,
    FixedDetector,
    largest,
    three_points,
    track,
)
from latentsync.faces.detectors.base import THREE_POINTS, bounding_box


def test_the_largest_face_is_chosen_and_then_followed() -> None:
    detector = DotDetector()
    frames = [draw((20 + 4 * i, 30, 40, 200), (150, 90, 20 + 4 * i, 150)) for i in range(10)]
    faces = list(track(frames, detector))
    for index, face in enumerate(faces):
        np.testing.assert_array_equal(face.box[:2], [20 + 4 * index, 30])
    assert detector.num_detections == 1


def test_a_lost_face_is_looked_for_again() -> None:
    here, there = draw((20, 30, 40, 200)), draw((150, 90, 40, 200))
    faces = list(track([here, draw(), draw(), there], DotDetector()))
    assert [face is None for face in faces] == [False, True, True, False]
    np.testing.assert_array_equal(faces[3].box[:2], [150, 90])


def test_a_cut_means_looking_again() -> None:
    detector = DotDetector()
    first = draw((20, 30, 40, 200))
    second = draw((20, 30, 40, 200), (80, 30, 60, 220), background=90)
    faces = list(track([first] * 3 + [second] * 3, detector))
    assert [round(face.score * 255) for face in faces] == [200] * 3 + [220] * 3
    assert detector.num_detections == 2


def test_frames_may_change_size() -> None:
    frames = [draw((20, 30, 40, 200)), np.zeros((80, 60, 3), dtype=np.uint8)]
    found = list(track(iter(frames), DotDetector()))
    assert [face is None for face in found] == [False, True]


def test_given_points_stand_still_or_come_one_by_one() -> None:
    still = [[10, 10], [30, 10], [20, 20]]
    frame = np.zeros((8, 8, 3), dtype=np.uint8)
    for face in track([frame] * 3, FixedDetector(still)):
        np.testing.assert_array_equal(three_points(face), still)
    moving = np.array(still) + np.arange(3)[:, None, None]
    for face, points in zip(track([frame] * 3, FixedDetector(moving)), moving, strict=True):
        np.testing.assert_array_equal(three_points(face), points)
    with pytest.raises(ValueError, match="only 3 triples"):
        list(track([frame] * 4, FixedDetector(moving)))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        FixedDetector(still[:2])


def test_detectors_are_detectors() -> None:
    assert isinstance(DotDetector(), FaceDetector)
    assert isinstance(FixedDetector([[1, 1], [3, 1], [2, 2]]), FaceDetector)


@pytest.mark.parametrize(
    ("scheme", "num_points"), [("106", 106), ("68", 68), ("mesh", 468), ("three", 3)]
)
def test_three_points_are_means_of_their_groups(scheme: str, num_points: int) -> None:
    points = np.full((num_points, 2), 1e6)
    for index, group in enumerate(THREE_POINTS[scheme]):
        around = np.arange(len(group)) - (len(group) - 1) / 2
        points[group] = [10.0 + index, 20.0 + index] + around[:, None]
    face = Face(bounding_box(points), points, 1.0, scheme)
    np.testing.assert_allclose(three_points(face), [[10, 20], [11, 21], [12, 22]])


def test_the_largest_of_none_is_none() -> None:
    assert largest([]) is None
