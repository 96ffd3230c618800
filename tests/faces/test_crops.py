"""Faces are embedded late, and only where there is somebody to tell them apart from."""

import numpy as np

from faces.dots import DotDetector, LevelLook, draw
from latentsync.faces import Face, three_points
from latentsync.faces.detectors.base import CropEmbedder
from latentsync.faces.tracking.survey import Survey, survey

A, B, C = 200, 150, 120  # grey levels of squares


class CroppedLook(LevelLook):
    """The same in two steps, which are counted."""

    def __init__(self) -> None:
        self.num_cropped = self.num_embedded = self.most_waiting = 0

    def __call__(self, frame: np.ndarray, face: Face) -> np.ndarray:
        return self.embed(self.crop(frame, face))

    def crop(self, frame: np.ndarray, face: Face) -> np.ndarray:
        self.num_cropped += 1
        self.most_waiting = max(self.most_waiting, self.num_cropped - self.num_embedded)
        return np.full((4, 4, 3), face.score * 255, np.uint8)

    def embed(self, picture: np.ndarray) -> np.ndarray:
        self.num_embedded += 1
        return picture[0, 0, :1].astype(float)


def spans(found: Survey) -> list[tuple[int, int, int]]:
    return [(track.person, track.first, track.end) for track in found.tracks]


def test_a_face_that_is_alone_in_its_video_is_never_embedded() -> None:
    embedder = CroppedLook()
    assert isinstance(embedder, CropEmbedder)
    frames = [draw((20 + index, 30, 40, A)) for index in range(30)]
    found = survey(frames, DotDetector(), three_points, embedder=embedder)
    assert spans(found) == [(0, 0, 30)]
    assert embedder.num_cropped > 3
    assert embedder.num_embedded == 0


def test_crops_embedded_later_tell_the_same_persons_apart() -> None:
    one, other = draw((20, 30, 40, A)), draw((20, 30, 40, B), background=60)
    both = draw((20, 30, 40, A), (150, 90, 40, B), (80, 100, 30, C), background=30)
    frames = [one] * 10 + [other] * 10 + [both] * 20 + [one] * 10
    embedder = CroppedLook()
    found = survey(frames, DotDetector(), three_points, embedder=embedder)
    assert spans(found) == spans(survey(frames, DotDetector(), three_points, embedder=LevelLook()))
    assert len({track.person for track in found.tracks}) == 3
    assert embedder.num_embedded == embedder.num_cropped


def test_crops_do_not_pile_up_over_shots_and_crowds() -> None:
    def most_waiting(frames: list[np.ndarray]) -> int:
        embedder = CroppedLook()
        survey(frames, DotDetector(), three_points, embedder=embedder, every=3)
        return embedder.most_waiting

    one, other = draw((20, 30, 40, A)), draw((20, 30, 40, B), background=60)
    assert most_waiting(([one] * 8 + [other] * 8) * 10) < 10
    crowd = [
        [(5 + 22 * (level % 10), 5 + 22 * (level // 10), 20, 110 + level) for level in range(size)]
        for size in range(1, 31)
    ]
    crowded = [draw(*squares, background=0) for squares in crowd for _ in range(4)]
    assert most_waiting(crowded) < 160  # of 314; clearer ones took the place of 81 of them
