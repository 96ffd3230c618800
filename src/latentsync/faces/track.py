"""Follows one face through a video: the largest, until it is lost or the shot ends."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int16, UInt8

from latentsync.faces.detect import Face, FaceDetector, largest

# Mean difference of grey levels between neighbouring frames; motion stays under 10, cuts are
# over 30. A false alarm costs one detection.
CUT_LEVELS = 20
CUT_STRIDE = 16


class Tracker:
    """Call it with one frame after the other; holds the last face and a thumbnail."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.face: Face | None = None
        self.thumbnail: Int16[np.ndarray, "h w 3"] | None = None

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """The followed face in this frame, None where there is none."""
        cut = self.is_cut(frame[::CUT_STRIDE, ::CUT_STRIDE].astype(np.int16))
        followed = None if cut or not self.face else self.detector.refine(frame, self.face)
        self.face = followed or largest(self.detector(frame))
        return self.face

    def is_cut(self, thumbnail: Int16[np.ndarray, "h w 3"]) -> bool:
        before, self.thumbnail = self.thumbnail, thumbnail
        if before is None or before.shape != thumbnail.shape:
            return True
        return bool(np.abs(thumbnail - before).mean() >= CUT_LEVELS)


def track(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], detector: FaceDetector
) -> Iterator[Face | None]:
    """One face, or None, for every frame."""
    return map(Tracker(detector), frames)
