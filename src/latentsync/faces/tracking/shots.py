"""Where one shot ends and the next begins, from small pictures of neighbouring frames."""

from collections import deque
from statistics import median

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Levels, 0 to 255. Motion stays under 10 a frame, most cuts are over 30.
CUT_LEVELS = 20
# A quieter cut, between dark or like scenes: a change of this many levels, of which a brighter or
# darker copy of the frame before leaves this share of what the picture shows unexplained. Motion
# stays under 0.2 on real clips, drawn cuts are over 0.38; a fade leaves nothing.
QUIET_LEVELS, QUIET_SHARE = 4, 0.35
# A cut stands out: fast pans and noise change every frame as much.
STANDS_OUT, MEMORY = 2, 12
SIDE = 32  # of a small picture, about


class ShotDetector:
    """Call it with one frame after the other: is this the first frame of a shot?"""

    def __init__(self) -> None:
        self.before: Float[np.ndarray, "h w 3"] | None = None
        self.changes: deque[float] = deque(maxlen=MEMORY)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> bool:
        """True for the first frame of all, after a cut, and where the size of frames changes."""
        small = shrink(frame)
        before, self.before = self.before, small
        if before is None or before.shape != small.shape:
            self.changes.clear()
            return True
        change = float(np.abs(small - before).mean())
        usual = median(self.changes) if self.changes else 0.0
        self.changes.append(change)
        if change < STANDS_OUT * usual:
            return False
        quiet = change >= QUIET_LEVELS and unexplained(before, small) >= QUIET_SHARE
        return change >= CUT_LEVELS or quiet


def shrink(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h2 w2 3"]:
    """A small picture: samples, averaged two by two against noise."""
    step = max(min(frame.shape[:2]) // (2 * SIDE), 1)
    height, width = frame.shape[:2]
    sampled = (-(-width // step), -(-height // step))
    samples = cv2.resize(frame, sampled, interpolation=cv2.INTER_NEAREST)
    size = ((sampled[0] + 1) // 2, (sampled[1] + 1) // 2)
    return cv2.resize(samples, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def unexplained(before: Float[np.ndarray, "h w 3"], after: Float[np.ndarray, "h w 3"]) -> float:
    """What no change of brightness and contrast explains, over the contrast; 0 for a fade."""
    before, after = before - before.mean(), after - after.mean()
    gain = (before * after).sum() / max((before * before).sum(), 1e-6)
    contrast = (np.abs(before).mean() + np.abs(after).mean()) / 2
    return float(np.abs(after - gain * before).mean() / max(contrast, 1e-6))
