"""Affine maps of pictures and points; matrices are 2x3, with pixel centres at integers."""

import math

import cv2
import numpy as np
from jaxtyping import Float, Num

Matrix = Float[np.ndarray, "2 3"]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; x1 and y1 are exclusive


def compose(second: Matrix, first: Matrix) -> Matrix:
    """The map that applies `first`, then `second`."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def invert(matrix: Matrix) -> Matrix:
    return cv2.invertAffineTransform(np.asarray(matrix, dtype=np.float64))


def transform(matrix: Matrix, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    return points @ matrix[:, :2].T + matrix[:, 2]


def resize_matrix(size: tuple[int, int], target: tuple[int, int]) -> Matrix:
    """The map that resizes a (w, h) picture to (w, h) `target`, aligning picture edges."""
    x, y = target[0] / size[0], target[1] / size[1]
    return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5]])


def mean_scale(matrix: Matrix) -> float:
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def source_box(
    matrix: Matrix, size: tuple[int, int], frame_size: tuple[int, int], margin: int
) -> Box:
    """The part of a (w, h) frame that `matrix` maps into a (w, h) picture; may be empty."""
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
    inside = transform(invert(matrix), corners)
    x0, y0 = np.maximum(np.floor(inside.min(axis=0)).astype(int) - margin, 0)
    x1, y1 = np.minimum(np.ceil(inside.max(axis=0)).astype(int) + margin + 1, frame_size)
    return int(x0), int(y0), max(int(x1), int(x0)), max(int(y1), int(y0))


def whole_blocks(first: int, end: int, length: int, size: int) -> tuple[int, int]:
    """The span of a line of `length` pixels, extended to whole blocks of `size` if they fit in it.

    OpenCV averages whole blocks about ten times as fast as fractions of pixels.
    """
    total = -(-(end - first) // size) * size
    if total > length:
        return first, end
    first = min(first, length - total)
    return first, first + total


def warp(
    image: Num[np.ndarray, "h w *c"],
    matrix: Matrix,
    size: tuple[int, int],
    *,
    interpolation: int = cv2.INTER_LINEAR,
    border_mode: int = cv2.BORDER_CONSTANT,
    border_value: float = 0,
) -> Num[np.ndarray, "h2 w2 *c"]:
    """`cv2.warpAffine`, preceded by area averaging if it shrinks to half or less (antialiasing)."""
    factor = int(1 / mean_scale(matrix))
    if factor >= 2:
        height, width = image.shape[:2]
        x0, y0, x1, y1 = source_box(matrix, size, (width, height), margin=2 * factor)
        if x1 > x0 and y1 > y0:
            (x0, x1), (y0, y1) = (
                whole_blocks(x0, x1, width, factor),
                whole_blocks(y0, y1, height, factor),
            )
            part, small = (x1 - x0, y1 - y0), (-(-(x1 - x0) // factor), -(-(y1 - y0) // factor))
            image = cv2.resize(image[y0:y1, x0:x1], small, interpolation=cv2.INTER_AREA)
            from_small = resize_matrix(small, part) + np.array([[0, 0, x0], [0, 0, y0]])
            matrix = compose(matrix, from_small)
    return cv2.warpAffine(
        image,
        matrix,
        size,
        flags=interpolation,
        borderMode=border_mode,
        borderValue=(border_value,) * 3,
    )
