"""How far heads are turned reaches the frame it belongs to."""

import numpy as np

from latentsync.faces import Face
from latentsync.faces.align import ALIGNERS
from latentsync.faces.shape import LEFT_SIDE, RIGHT_SIDE
from latentsync.prepare.align import aligned_faces

NUM_FRAMES, SIZE = 30, 64


class Turning:
    """A head that turns by a degree a frame; nobody in frame 20."""

    def __init__(self) -> None:
        self.places = np.zeros((468, 2))
        self.places[:] = (32.0, 36.0)
        for rows, side in ((LEFT_SIDE, -1), (RIGHT_SIDE, 1)):
            self.places[rows] = (32.0 + side * 10, 25.0)
        self.places[[70, 63, 105, 66, 107]] = (22.0, 25.0)
        self.places[[300, 293, 334, 296, 336]] = (42.0, 25.0)

    def __call__(self, frame: np.ndarray) -> list[Face]:
        number = int(frame[0, 0, 0])
        if number == 20:
            return []
        depths = np.zeros(468)
        for rows, side in ((LEFT_SIDE, -1), (RIGHT_SIDE, 1)):
            depths[rows] = side * 10 * np.tan(np.radians(number))
        return [Face(np.array([12.0, 15, 52, 60]), self.places, 1.0, "mesh", depths)]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return next(iter(self(frame)), None)


def test_each_face_has_the_turn_of_its_own_frame():
    """The aligner looks ahead, so the two do not come at one time."""
    frames = (np.full((SIZE, SIZE, 3), number, np.uint8) for number in range(NUM_FRAMES))
    found = list(aligned_faces(frames, Turning(), ALIGNERS["smooth"](SIZE), SIZE))
    assert [number for number, face in enumerate(found) if face is None] == [20]
    for number, face in enumerate(found):
        if face is not None:
            assert face.frame[SIZE // 2, SIZE // 2, 0] == number
            assert abs(face.turn - number) < 1e-6
