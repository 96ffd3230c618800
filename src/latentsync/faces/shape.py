"""What the points of a face say about it."""

from typing import NamedTuple

import numpy as np

from latentsync.faces.detect import Face


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


def _distance(face: Face, a: int, b: int) -> float:
    return float(np.linalg.norm(face.points[a] - face.points[b]))
