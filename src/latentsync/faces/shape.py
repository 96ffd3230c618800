"""Measurements from the points of a face: mouth shape and head yaw."""

from functools import lru_cache
from importlib import resources
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from latentsync.faces.detectors.base import FIVE_POINTS, Face

# Corrects underestimated yaw, measured on labelled real clips: for heads turned by about 60 degrees
# a mesh, which follows only partly, gives 45; five points give 57.
MESH_GAIN, FIVE_GAIN = 60 / 45, 60 / 57
FOCAL_LENGTH = 3.0  # in face sizes: close enough for any camera that shows a whole face


class MouthShape(NamedTuple):
    """Distances divided by the distance of the outer eye corners."""

    opening: float
    width: float


def mouth_shape(face: Face) -> MouthShape:
    """Gap between the inner lips and width of the mouth, independent of the face's size."""
    if face.scheme != "mesh":
        raise ValueError(
            f"the mouth is read from mesh points, this face has {face.scheme!r} points"
        )
    eyes = _distance(face, 33, 263)
    return MouthShape(_distance(face, 13, 14) / eyes, _distance(face, 61, 291) / eyes)


def yaw_degrees(face: Face) -> float:
    """Yaw of a head, -90 to 90; 0 faces the camera, positive to the image's right.

    From the pose of a mean face fitted to the mesh points.
    """
    if face.scheme != "mesh":
        raise ValueError(
            f"the turn of a head is read from mesh points, this face has {face.scheme!r} points"
        )
    num_points = len(canonical_face())  # meshes with irises have ten more
    return _yaw(face.points[:num_points], canonical_face(), MESH_GAIN)


def five_yaw(points: Float[np.ndarray, "5 2"]) -> float:
    """As `yaw_degrees`, from eyes, nose and mouth corners."""
    return _yaw(points, _canonical_five(), FIVE_GAIN)


@lru_cache(maxsize=1)
def canonical_face() -> Float[np.ndarray, "468 3"]:
    """The mean of 172 frontal meshes of 31 people, symmetrised.

    x to the image's right, y down, z away from the camera.
    """
    path = resources.files("latentsync.faces").joinpath("canonical_face.npy")
    return np.load(BytesIO(path.read_bytes())).astype(np.float64)


@lru_cache(maxsize=1)
def _canonical_five() -> Float[np.ndarray, "5 3"]:
    return np.stack([canonical_face()[rows].mean(axis=0) for rows in FIVE_POINTS["mesh"]])


def _yaw(points: Float[np.ndarray, "n 2"], model: Float[np.ndarray, "n 3"], gain: float) -> float:
    low, high = points.min(axis=0), points.max(axis=0)
    size = float((high - low).max())
    if size == 0:
        raise ValueError(f"the points of a face fall together at {points[0].tolist()}")
    camera = np.diag([FOCAL_LENGTH, FOCAL_LENGTH, 1.0])
    centred = np.ascontiguousarray((points - (low + high) / 2) / size, dtype=np.float64)
    _, rotation, _ = cv2.solvePnP(model, centred, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    # Depth of the right side of the head relative to its left side.
    depth = float(cv2.Rodrigues(rotation)[0][2, 0])
    return float(np.clip(gain * np.degrees(np.arcsin(np.clip(depth, -1, 1))), -90, 90))


def _distance(face: Face, a: int, b: int) -> float:
    return float(np.linalg.norm(face.points[a] - face.points[b]))
