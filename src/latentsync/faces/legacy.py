"""The alignment of the official code until April 2025, used to train the weights 1.0 and 1.5.

It uses 68 landmarks, damps their jitter, and crops with Lanczos; nothing is rounded.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Float

from latentsync.faces.detectors.base import THREE_POINTS, Face, three_points
from latentsync.faces.placement import (
    Placement,
    crop_template,
    normalise,
    similarity_from_points,
)

SMOOTHING = 0.3
# Indices of the 68 points: left brow, right brow, the whole nose.
PARTS = (slice(17, 22), slice(22, 27), slice(27, 36))
NUM_POINTS = 36  # the first of the 68 points: jaw, brows, nose
# Width of a face in distances between the brows, if only brows and nose are given.
FACE_WIDTH = 1.9

# The mesh points corresponding to the first of the 68.
MESH_JAW = [127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356]
MESH_NOSE = [168, 197, 5, 4, 75, 97, 2, 326, 305]
MESH_POINTS = [*MESH_JAW, *THREE_POINTS["mesh"][0], *THREE_POINTS["mesh"][1], *MESH_NOSE]


class LegacyAligner:
    """68 points, or three, damped over time; the crop is 210x280 at every resolution."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.template, self.size = crop_template(256)
        self.smoothed: Float[np.ndarray, "n 2"] | None = None
        self.bias: Float[np.ndarray, "2"] | None = None

    def points_of(self, face: Face) -> Float[np.ndarray, "n 2"]:
        """The 68 points, or the corresponding points of a mesh; three points of other schemes."""
        if face.scheme == "68":
            return face.points
        return face.points[MESH_POINTS] if face.scheme == "mesh" else three_points(face)

    def placements(
        self, points: Iterable[Float[np.ndarray, "_ 2"] | None]
    ) -> Iterator[Placement | None]:
        """One placement per set of points, None for None; all sets have one size, 3 or >= 36."""
        return (None if given is None else self.place(given) for given in points)

    def place(self, points: Float[np.ndarray, "n 2"]) -> Placement:
        """The placement of one frame's points, which depends on the frames before it."""
        self.smoothed = damp(points, self.smoothed)
        triple = part_means(self.smoothed)
        matrix = similarity_from_points(triple, self.template)
        # As in the official aligner, but with the population standard deviation as unit.
        unit = np.sqrt(triple.size / (triple.size - 1))
        bias = unit * (normalise(self.template)[0][2] - normalise(triple)[0][2])
        self.bias = bias if self.bias is None else 0.2 * self.bias + 0.8 * bias
        matrix[:, 2] += self.bias
        return Placement(matrix, self.size, cv2.INTER_LANCZOS4)


def part_means(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 2"]:
    """Left brow, right brow and nose of the 68 points, or the three points themselves."""
    if len(points) == 3:
        return points
    if len(points) < NUM_POINTS:
        raise ValueError(
            f"the legacy alignment stands on 3 points or on {NUM_POINTS} to 68, got {len(points)}"
        )
    return np.stack([points[part].mean(axis=0) for part in PARTS])


def damp(
    points: Float[np.ndarray, "n 2"], before: Float[np.ndarray, "m 2"] | None
) -> Float[np.ndarray, "n 2"]:
    """Each point damped towards its last position by exp(-d^2 / (0.3 w)), d its step, w face width.

    Small steps are damped, large ones pass: a point that moves by much more than sqrt(0.3 w) pixels
    is unchanged. Called Laplacian smoothing in the official history.
    """
    if before is None:
        return points
    if before.shape != points.shape:
        raise ValueError(
            f"the legacy alignment follows one set of points, got {len(points)} after {len(before)}"
        )
    if len(points) == 3:
        width = FACE_WIDTH * float(np.linalg.norm(points[1] - points[0]))
    else:
        width = float(np.ptp(points[:, 0]))
    steps = np.square(points - before).sum(axis=1, keepdims=True)
    held = np.exp(-steps / (SMOOTHING * width))
    return held * before + (1 - held) * points
