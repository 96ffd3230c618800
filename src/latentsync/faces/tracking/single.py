"""Follows one face through a video: the largest, until it is lost or the shot ends."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8

from latentsync.faces.detectors.base import Face, FaceDetector, largest
from latentsync.faces.tracking.shots import ShotDetector


class Tracker:
    """Call it with one frame after the other; holds the last face and a small picture."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.face: Face | None = None
        self.cuts = ShotDetector()

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """The followed face in this frame, None where there is none."""
        cut = self.cuts(frame)
        followed = None if cut or not self.face else self.detector.refine(frame, self.face)
        self.face = followed or largest(self.detector(frame))
        return self.face


def track(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], detector: FaceDetector
) -> Iterator[Face | None]:
    """One face, or None, for every frame."""
    return map(Tracker(detector), frames)
