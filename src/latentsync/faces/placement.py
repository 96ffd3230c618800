"""The placement of a face in its frame: the published crop, and the similarity to it."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float

from latentsync.faces.warp import Matrix, compose, resize_matrix

Points = Float[np.ndarray, "3 2"]

TEMPLATE = np.array([[17.0, 20.0], [58.0, 20.0], [37.5, 40.0]])
TEMPLATE_SIZE = (75, 100)
TEMPLATE_SCALE = 2.8 / 256


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a face is: `matrix` maps the frame to a crop of (w, h) `size`.

    `interpolation` is OpenCV's, used to cut a crop that is not square.
    """

    matrix: Matrix
    size: tuple[int, int]
    interpolation: int = cv2.INTER_LINEAR

    def square_matrix(self, resolution: int) -> Matrix:
        """Matrix from the frame to the square face."""
        return compose(resize_matrix(self.size, (resolution, resolution)), self.matrix)

    def inside(self, x: int, y: int) -> "Placement":
        """The same placement relative to the part of the frame that starts at x, y."""
        from_part = np.array([[1.0, 0, x], [0, 1.0, y]])
        return replace(self, matrix=compose(self.matrix, from_part))


def crop_template(resolution: int) -> tuple[Points, tuple[int, int]]:
    """Left brow, right brow and nose in the official crop, and its (w, h), truncated as there."""
    scale = resolution / 256 * 2.8
    return TEMPLATE * scale, (int(TEMPLATE_SIZE[0] * scale), int(TEMPLATE_SIZE[1] * scale))


def similarity_from_points(points: Points, template: Points) -> Matrix:
    """Rotation, scale and shift from the points to the template (Procrustes, by SVD).

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
    """Centred points divided by their standard deviation; the deviation; the centre."""
    center = points.mean(axis=0)
    spread = float((points - center).std(ddof=1))
    if spread == 0:
        raise ValueError(f"the three points of a face fall together: {points.tolist()}")
    return (points - center) / spread, spread, center
