"""A test world in which faces are plain squares, distinguished by their grey level."""

import numpy as np

from latentsync.faces import Face, FaceDetector
from latentsync.faces.detectors.base import bounding_box


class DotDetector(FaceDetector):
    """Detects plain squares by colour; tracks one within a few pixels of its last position."""

    def __init__(self) -> None:
        self.num_detections = 0

    def __call__(self, frame: np.ndarray) -> list[Face]:
        self.num_detections += 1
        faces = [self.at(frame, level) for level in np.unique(frame) if level > 100]
        return [face for face in faces if face]

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        moved = self.at(frame, round(face.score * 255))
        if moved is None or np.abs(moved.box - face.box).max() > 10:
            return None
        return moved

    def at(self, frame: np.ndarray, level: int) -> Face | None:
        rows, columns = np.nonzero(frame[..., 0] == level)
        if len(rows) == 0:
            return None
        corners = np.stack([columns, rows], axis=1).astype(float)
        box = bounding_box(corners)
        return Face(box, np.stack([box[:2], box[2:], box[:2]]), level / 255, "three")


class LevelLook:
    """The embedding of a square is its level."""

    limit = 5.0
    cache_key = "level"

    def __call__(self, frame: np.ndarray, face: Face) -> np.ndarray:
        return np.array([face.score * 255])


def draw(*squares: tuple[int, int, int, int], background: int | None = None) -> np.ndarray:
    """Squares as x, y, side, level, on stripes or a plain level."""
    frame = np.full((160, 240, 3), background or 0, dtype=np.uint8)
    if background is None:
        frame[np.arange(160) // 20 % 2 == 0] = 90
    for x, y, side, level in squares:
        frame[y : y + side, x : x + side] = level
    return frame
