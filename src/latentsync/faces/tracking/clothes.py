"""Colours of what people wear, as a second cue of who is who within a recording."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

# The part of the frame that shows the torso, in sizes of the face from the middle of its box.
HALF_WIDTH, TOP, BOTTOM = 0.7, 1.1, 2.7
MIN_VISIBLE = 0.25
PIXELS = 20  # per size of the face, enough for colours
# Bins of lightness and of both colour axes, from the first to the last edge, and their blur.
BINS, EDGES, BLUR = (6, 10, 10), ((0, 100), (-40, 40), (-40, 40)), 0.7
# Distance below which clothes count as alike: of real people at most 5 % of the pairs that differ.
ALIKE = 0.2

Colours = Float[np.ndarray, "l a b"]


def torso_colours(frame: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> Colours | None:
    """Shares of CIE Lab colours below a face; None if the frame shows too little of it."""
    size = float((box[2:] - box[:2]).max())
    x, y = (box[:2] + box[2:]) / 2
    corners = [x - HALF_WIDTH * size, y + TOP * size, x + HALF_WIDTH * size, y + BOTTOM * size]
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = np.clip(corners, 0, [width, height, width, height]).astype(int)
    area = 2 * HALF_WIDTH * (BOTTOM - TOP) * size**2
    if (x1 - x0) * (y1 - y0) <= MIN_VISIBLE * area:
        return None
    shown = [max(round(length * PIXELS / size), 1) for length in (x1 - x0, y1 - y0)]
    small = cv2.resize(frame[y0:y1, x0:x1], shown, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    low, high = np.array(EDGES).T
    counts = np.histogramdd(np.clip(lab, low, high), bins=BINS, range=EDGES)[0]
    blurred = gaussian_filter(counts, BLUR)
    return blurred / blurred.sum()


def likeness(worn: Sequence[Colours | None]) -> Float[np.ndarray, "n n"]:
    """Of all pairs: 1 for the same colours, 0 from a Hellinger distance of `ALIKE` on, or if one is
    unknown."""
    unknown = np.zeros(int(np.prod(BINS)))
    roots = np.sqrt([unknown if each is None else each.ravel() for each in worn])
    apart = np.sqrt(np.maximum(1 - roots @ roots.T, 0))
    return np.maximum(0, 1 - apart / ALIKE)
