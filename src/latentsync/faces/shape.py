"""What the points of a face say about it."""

from typing import NamedTuple

import numpy as np

from latentsync.faces.detectors.base import Face

# Points of the mesh that lie level on both sides of the face, left and right of the image: outer
# and inner eye corners, temples, cheekbones, corners of the mouth.
LEFT_SIDE, RIGHT_SIDE = [33, 133, 127, 234, 61], [263, 362, 356, 454, 291]


class MouthShape(NamedTuple):
    """Distances over the distance of the outer eye corners."""

    opening: float
    width: float


def mouth_shape(face: Face) -> MouthShape:
    """Opening between the inner lips and width of the mouth, free of the size of the face."""
    if face.scheme != "mesh":
        raise ValueError(
            f"the mouth is read from mesh points, this face has {face.scheme!r} points"
        )
    eyes = _distance(face, 33, 263)
    return MouthShape(_distance(face, 13, 14) / eyes, _distance(face, 61, 291) / eyes)


def yaw_degrees(face: Face) -> float:
    """How far a head is turned, -90 to 90; 0 faces the camera, positive to the image's right.

    The angle between the picture and the lines across the face, which the depths of the mesh give.
    """
    if face.scheme != "mesh" or face.depths is None:
        raise ValueError(
            f"the turn of a head is read from mesh points with depths, this face has "
            f"{face.scheme!r} points{'' if face.depths is not None else ' without depths'}"
        )
    across = np.linalg.norm((face.points[RIGHT_SIDE] - face.points[LEFT_SIDE]).mean(axis=0))
    behind = (face.depths[RIGHT_SIDE] - face.depths[LEFT_SIDE]).mean()
    return float(np.degrees(np.arctan2(behind, across)))


def _distance(face: Face, a: int, b: int) -> float:
    return float(np.linalg.norm(face.points[a] - face.points[b]))
