"""Tracks one face through a video: the largest, until it is lost or the shot ends."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8

from latentsync.faces.detectors.base import Face, FaceDetector, largest
from latentsync.faces.tracking.shots import shots_of


class Tracker:
    """Call it with the frames of one shot; keeps the last face."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.face: Face | None = None

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """The tracked face in this frame, None if there is none that can be aligned."""
        followed = self.detector.refine(frame, self.face) if self.face else None
        self.face = followed or largest(self.detector(frame))
        return self.face if self.face and self.face.can_be_aligned else None


def track(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], detector: FaceDetector
) -> Iterator[Face | None]:
    """One face, or None, per frame, a few frames behind its input."""
    for shot in shots_of(frames):
        yield from map(Tracker(detector), shot)
