"""From three points to the square face the networks see, and the placement that puts it back.

The crop is 3:4 and squeezed to a square on purpose: the published networks were trained so.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.warp import Matrix, compose, resize_matrix, source_box, warp

Points = Float[np.ndarray, "3 2"]

BORDER_LEVEL = 127
TEMPLATE = np.array([[17.0, 20.0], [58.0, 20.0], [37.5, 40.0]])
TEMPLATE_SIZE = (75, 100)
TEMPLATE_SCALE = 2.8 / 256


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a face sits: `matrix` maps the frame to a crop of (w, h) `size`."""

    matrix: Matrix
    size: tuple[int, int]

    def square_matrix(self, resolution: int) -> Matrix:
        """Frame -> square face."""
        return compose(resize_matrix(self.size, (resolution, resolution)), self.matrix)


def crop_template(resolution: int) -> tuple[Points, tuple[int, int]]:
    """Left brow, right brow and nose in the official crop, and its (w, h), truncated as there."""
    scale = resolution / 256 * 2.8
    return TEMPLATE * scale, (int(TEMPLATE_SIZE[0] * scale), int(TEMPLATE_SIZE[1] * scale))


def similarity_from_points(points: Points, template: Points) -> Matrix:
    """Rotation, scale and shift that take the points to the template: Procrustes by the SVD.

    Scale is the ratio of the standard deviations, as in the official code.
    """
    points_unit, points_spread, points_center = normalise(points)
    template_unit, template_spread, template_center = normalise(template)
    u, _, vt = np.linalg.svd(points_unit.T @ template_unit)
    rotation = vt.T @ u.T
    if np.linalg.det(rotation) < 0:
        vt[-1] *= -1
        rotation = vt.T @ u.T
    linear = template_spread / points_spread * rotation
    return np.column_stack([linear, template_center - linear @ points_center])


def normalise(points: Points) -> tuple[Points, float, Float[np.ndarray, "2"]]:
    """Centred points over their standard deviation; the deviation; the centre."""
    center = points.mean(axis=0)
    spread = float((points - center).std(ddof=1))
    if spread == 0:
        raise ValueError(f"the three points of a face fall together: {points.tolist()}")
    return (points - center) / spread, spread, center


class OfficialAligner:
    """Rounded points, no smoothing worth the name: what the published code does today."""

    def __init__(self, resolution: int) -> None:
        self.template, self.size = crop_template(resolution)
        self.bias: Float[np.ndarray, "2"] | None = None

    def placements(self, points: Iterable[Points | None]) -> Iterator[Placement | None]:
        """One placement per triple of points, None for None."""
        return (None if triple is None else self.place(triple) for triple in points)

    def place(self, points: Points) -> Placement:
        rounded = np.round(points)
        matrix = similarity_from_points(rounded, self.template)
        # A dimensionless offset of the nose, averaged over time and added to pixels: never more
        # than a fraction of one. It is in the published results.
        bias = normalise(self.template)[0][2] - normalise(rounded)[0][2]
        self.bias = bias if self.bias is None else 0.2 * self.bias + 0.8 * bias
        matrix[:, 2] += self.bias
        return Placement(matrix, self.size)


class SmoothAligner:
    """Points smoothed over time by a centred Gaussian, placed straight onto the square face.

    Holds `radius` frames of look-ahead. Frames without a face and jumps (cuts) part the smoothing.
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

    def placements(self, points: Iterable[Points | None]) -> Iterator[Placement | None]:
        """One placement per triple of points, None for None, `radius` frames behind its input."""
        for smoothed in self.smooth(points):
            yield None if smoothed is None else self.place(smoothed)

    def place(self, points: Points) -> Placement:
        matrix = compose(self.squeeze, similarity_from_points(points, self.template))
        return Placement(matrix, (self.resolution, self.resolution))

    def smooth(self, points: Iterable[Points | None]) -> Iterator[Points | None]:
        """The smoothed triples, None where None came in."""
        segment: deque[Points] = deque(maxlen=2 * self.radius + 1)
        num_pending = 0  # the last of the segment, not yet given out
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
                yield local_line(segment, len(segment) - num_pending, self.sigma_frames)
                num_pending -= 1
        yield from self.flush(segment, num_pending)

    def is_jump(self, before: Points, after: Points) -> bool:
        step = np.linalg.norm(after - before, axis=1).max()
        return bool(step > self.max_jump * np.linalg.norm(before[1] - before[0]))

    def flush(self, segment: deque[Points], num_pending: int) -> Iterator[Points]:
        for index in range(len(segment) - num_pending, len(segment)):
            first = max(index - self.radius, 0)
            yield local_line(list(segment)[first:], index - first, self.sigma_frames)


def local_line(window: Sequence[Points], index: int, sigma_frames: float) -> Points:
    """The value at `index` of a line fitted through the window with Gaussian weights around it.

    Inside a segment this is the Gaussian mean; at its ends, unlike the mean, it does not lag.
    """
    time = np.arange(len(window)) - index
    weights = np.exp(-0.5 * (time / sigma_frames) ** 2)
    s0, s1, s2 = weights.sum(), (weights * time).sum(), (weights * time**2).sum()
    if len(window) > 1:
        weights = weights * (s2 - s1 * time) / (s0 * s2 - s1**2)
    return np.tensordot(weights, np.stack(window), axes=1)


ALIGNERS = {"official": OfficialAligner, "smooth": SmoothAligner}


def align(
    frame: UInt8[np.ndarray, "h w 3"], placement: Placement, resolution: int
) -> UInt8[np.ndarray, "r r 3"]:
    """The face of a frame as a square.

    A 3:4 crop is cut, then squeezed, level for level as the official code does; a square one is cut
    in one step without aliasing.
    """
    size = (resolution, resolution)
    if placement.size[0] == placement.size[1]:
        matrix = placement.square_matrix(resolution)
        return warp(frame, matrix, size, border_value=BORDER_LEVEL)
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = source_box(placement.matrix, placement.size, (width, height), margin=2)
    if x1 <= x0 or y1 <= y0:
        return np.full((resolution, resolution, 3), BORDER_LEVEL, dtype=np.uint8)
    matrix = compose(placement.matrix, np.array([[1.0, 0, x0], [0, 1.0, y0]]))
    crop = cv2.warpAffine(
        frame[y0:y1, x0:x1].astype(np.float32),
        matrix,
        placement.size,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(BORDER_LEVEL,) * 3,
    )
    return cv2.resize(crop.astype(np.uint8), size, interpolation=cv2.INTER_LANCZOS4)
