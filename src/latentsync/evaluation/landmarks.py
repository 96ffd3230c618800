"""Lips by landmarks on aligned faces: no ground truth or training needed."""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.faces import Face, FaceDetector, track
from latentsync.faces.warp import Matrix, transform
from latentsync.metrics.base import Sample
from latentsync.metrics.lips import LIPS, shape_of

# Detectors need a face with surroundings and natural proportions: aligned faces are a 3:4 crop
# squeezed to a square.
HEIGHT, WIDTH, MARGIN = 256, 192, 96


# Outer corners of the eyes, whose distance is the unit.
EYES = (33, 263)


def read_lips(
    faces: UInt8[np.ndarray, "f r r 3"], detector: FaceDetector
) -> Float[Tensor, "f 40 2"]:
    """The lips of every aligned face."""
    return lips_of(find_faces(faces, detector))


def find_faces(faces: UInt8[np.ndarray, "f r r 3"], detector: FaceDetector) -> list[Face | None]:
    """The face in every aligned face, in the pixels of `with_room`."""
    return list(track((with_room(face) for face in faces), detector))


def points_in_aligned(found: Iterable[Face | None], resolution: int) -> Float[Tensor, "f 40 2"]:
    """Where the lips of `find_faces` are in the aligned faces, in pixels; NaN without a face."""
    scale = np.array([resolution / WIDTH, resolution / HEIGHT])
    offset = scale * (0.5 - MARGIN) - 0.5
    matrix = np.column_stack([np.diag(scale), offset])
    rows = [points_in(face, matrix) for face in found]
    return torch.from_numpy(np.array(rows).reshape(-1, len(LIPS), 2)).float()


def points_in(face: Face | None, matrix: Matrix) -> Float[np.ndarray, "40 2"]:
    """The lips where a map brings them; NaN without a face."""
    if face is None:
        return np.full((len(LIPS), 2), np.nan)
    return transform(matrix, face.points[list(LIPS)])


def lips_of(found: Iterable[Face | None]) -> Float[Tensor, "f 40 2"]:
    """Points of the lips divided by the distance of the eyes; NaN without a face."""
    missing = np.full((len(LIPS), 2), np.nan)
    rows = [missing if face is None else _lips(face) for face in found]
    return torch.from_numpy(np.array(rows).reshape(-1, len(LIPS), 2)).float()


def _lips(face: Face) -> Float[np.ndarray, "40 2"]:
    if face.scheme != "mesh":
        raise ValueError(f"lips are read from mesh points, this face has {face.scheme!r} points")
    left, right = face.points[list(EYES)]
    center = face.points[list(LIPS)].mean(axis=0)
    return (face.points[list(LIPS)] - center) / np.linalg.norm(right - left)


def by_landmarks(
    lips: Tensor | None,
    wanted: Tensor | None,
    *,
    filmed: Tensor | None = None,
    with_own_voice: Tensor | None = None,
) -> Sample:
    """What landmarks show of a face; `filmed`: the face before it spoke with another voice."""
    if lips is None or wanted is None:
        return {}
    tracks = {"own": filmed, "other_voice": with_own_voice}
    given = {name: track for name, track in tracks.items() if track is not None}
    num_frames = min(map(len, (lips, wanted, *given.values())))
    lips, wanted = lips[:num_frames], wanted[:num_frames]
    sample = {"lips": lips, "driving_lips": wanted}
    sample |= {"landmarks": shape_of(lips), "driving_landmarks": shape_of(wanted)}
    shapes = {f"{name}_landmarks": shape_of(track[:num_frames]) for name, track in given.items()}
    return sample | shapes


def without_truth(lips: Tensor, filmed: Tensor) -> Sample:
    """What landmarks show of a face that speaks with a voice whose mouth nobody knows."""
    num_frames = min(len(lips), len(filmed))
    lips, filmed = lips[:num_frames], filmed[:num_frames]
    return {"lips": lips, "landmarks": shape_of(lips), "own_landmarks": shape_of(filmed)}


def with_room(face: UInt8[np.ndarray, "r r 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The aligned face stretched back to 3:4, padded by replicating its edges."""
    stretched = cv2.resize(face, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return cv2.copyMakeBorder(stretched, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
