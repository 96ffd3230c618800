"""Alignment of a face to the square crop of the networks: three methods, and the crop itself.

The crop is 3:4 and squeezed to a square on purpose, as the published networks were trained.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import Face, three_points
from latentsync.faces.legacy import LegacyAligner
from latentsync.faces.official import BORDER_LEVEL, OfficialAligner, cut
from latentsync.faces.placement import (
    TEMPLATE,
    TEMPLATE_SCALE,
    TEMPLATE_SIZE,
    Placement,
    Points,
    similarity_from_points,
)
from latentsync.faces.warp import Box, compose, mean_scale, source_box, warp

SMOOTHING_RULE = 2  # version of the smoothing below; placements by older ones are recomputed
# Maximum distance of smoothed points from their own frame's, else the head is moving: a share of
# the spread of the three points (4 pixels for a face of 256), but at least the landmark noise.
MAX_LAG, SCATTER_PIXELS = 0.08, 0.75
REACH = 5  # support of Lanczos outside a point, plus one pixel


@runtime_checkable
class Aligner(Protocol):
    """Aligns one face over time: selects its points, and places it from them."""

    def points_of(self, face: Face) -> Float[np.ndarray, "_ 2"]:
        """The points of a face that `placements` needs."""

    def placements(
        self, points: Iterable[Float[np.ndarray, "_ 2"] | None]
    ) -> Iterator[Placement | None]:
        """One placement per set of points, None for None, in order."""


class SmoothAligner:
    """Smooths points over time with a centred Gaussian, places them directly on the square face.

    Fast heads are smoothed less: no point lags behind its frame's own by more than MAX_LAG. Needs
    `radius` frames of look-ahead. Frames without a face and jumps (cuts) interrupt the smoothing.
    """

    def __init__(
        self, resolution: int, *, sigma_frames: float = 1.5, radius: int = 4, max_jump: float = 0.5
    ) -> None:
        crop_scale = resolution * TEMPLATE_SCALE
        squeeze = resolution / (np.array(TEMPLATE_SIZE) * crop_scale)
        self.template = TEMPLATE * crop_scale
        self.squeeze = np.column_stack([np.diag(squeeze), 0.5 * squeeze - 0.5])
        self.resolution = resolution
        self.sigma_frames = sigma_frames
        self.radius = radius
        self.max_jump = max_jump

    points_of = staticmethod(three_points)

    def placements(self, points: Iterable[Points | None]) -> Iterator[Placement | None]:
        """One placement per triple of points, None for None, `radius` frames behind its input."""
        for smoothed in self.smooth(points):
            yield None if smoothed is None else self.place(smoothed)

    def place(self, points: Points) -> Placement:
        matrix = compose(self.squeeze, similarity_from_points(points, self.template))
        return Placement(matrix, (self.resolution, self.resolution))

    def smooth(self, points: Iterable[Points | None]) -> Iterator[Points | None]:
        """The smoothed triples, None for None."""
        segment: deque[Points] = deque(maxlen=2 * self.radius + 1)
        num_pending = 0  # at the end of the segment, not yet returned
        for triple in points:
            if triple is None or (segment and self.is_jump(segment[-1], triple)):
                yield from self.flush(segment, num_pending)
                segment.clear()
                num_pending = 0
            if triple is None:
                yield None
                continue
            segment.append(triple)
            num_pending += 1
            if num_pending > self.radius:
                yield steady_points(segment, len(segment) - num_pending, self.sigma_frames)
                num_pending -= 1
        yield from self.flush(segment, num_pending)

    def is_jump(self, before: Points, after: Points) -> bool:
        step = np.linalg.norm(after - before, axis=1).max()
        return bool(step > self.max_jump * np.linalg.norm(before[1] - before[0]))

    def flush(self, segment: deque[Points], num_pending: int) -> Iterator[Points]:
        for index in range(len(segment) - num_pending, len(segment)):
            first = max(index - self.radius, 0)
            yield steady_points(list(segment)[first:], index - first, self.sigma_frames)


def steady_points(window: Sequence[Points], index: int, sigma_frames: float) -> Points:
    """The smoothed points at `index`, moved towards the frame's own to limit the lag."""
    line, own = local_line(window, index, sigma_frames), window[index]
    lag = float(np.linalg.norm(own - line, axis=1).max())
    spread = float((line - line.mean(axis=0)).std(ddof=1))
    most = max(MAX_LAG * spread, SCATTER_PIXELS)
    return line if lag <= most else own + (line - own) * (most / lag)


def local_line(window: Sequence[Points], index: int, sigma_frames: float) -> Points:
    """The value at `index` of a line fitted to the window with Gaussian weights.

    Inside a segment this is the Gaussian mean; at its ends, unlike the mean, it does not lag.
    """
    time = np.arange(len(window)) - index
    weights = np.exp(-0.5 * (time / sigma_frames) ** 2)
    s0, s1, s2 = weights.sum(), (weights * time).sum(), (weights * time**2).sum()
    if len(window) > 1:
        weights = weights * (s2 - s1 * time) / (s0 * s2 - s1**2)
    return np.tensordot(weights, np.stack(window), axes=1)


ALIGNERS: dict[str, Callable[[int], Aligner]] = {
    "official": OfficialAligner,
    "smooth": SmoothAligner,
    "legacy": LegacyAligner,
}


def align(
    frame: UInt8[np.ndarray, "h w 3"], placement: Placement, resolution: int
) -> UInt8[np.ndarray, "r r 3"]:
    """The face of a frame as a square.

    A 3:4 crop is cut and then squeezed, bit-exact with the official code; a square one is cut in
    one step with antialiasing.
    """
    size = (resolution, resolution)
    if placement.size[0] == placement.size[1]:
        matrix = placement.square_matrix(resolution)
        return warp(frame, matrix, size, border_value=BORDER_LEVEL)
    if placement.interpolation == cv2.INTER_LINEAR:
        crop = cut(frame, placement.matrix, placement.size)
        return cv2.resize(crop, size, interpolation=cv2.INTER_LANCZOS4)
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = source_box(placement.matrix, placement.size, (width, height), margin=REACH)
    if x1 <= x0 or y1 <= y0:
        return np.full((resolution, resolution, 3), BORDER_LEVEL, dtype=np.uint8)
    crop = cv2.warpAffine(
        frame[y0:y1, x0:x1],
        compose(placement.matrix, np.array([[1.0, 0, x0], [0, 1.0, y0]])),
        placement.size,
        flags=placement.interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(BORDER_LEVEL,) * 3,
    )
    return cv2.resize(crop, size, interpolation=cv2.INTER_LANCZOS4)


def aligned_box(placement: Placement, resolution: int, frame_size: tuple[int, int]) -> Box:
    """The box x0, y0, x1, y1 of an (h, w) frame that contains all pixels read by `align`."""
    height, width = frame_size
    if placement.size[0] != placement.size[1]:
        return 0, 0, width, height
    matrix = placement.square_matrix(resolution)
    # `warp` averages blocks of so many pixels, whole ones.
    margin = REACH + 3 * int(1 / mean_scale(matrix))
    return source_box(matrix, (resolution, resolution), (width, height), margin=margin)
