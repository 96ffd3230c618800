"""Mouth opening and width by landmarks on aligned faces: no ground truth or training needed."""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.faces import Face, FaceDetector, mouth_shape, track

# Detectors need a face with surroundings and natural proportions: aligned faces are a 3:4 crop
# squeezed to a square.
HEIGHT, WIDTH, MARGIN = 256, 192, 96


def read_mesh(faces: UInt8[np.ndarray, "f r r 3"], detector: FaceDetector) -> Float[Tensor, "f 2"]:
    """(opening, width) of every aligned face."""
    return shapes(track((with_room(face) for face in faces), detector))


def shapes(found: Iterable[Face | None]) -> Float[Tensor, "f 2"]:
    """(opening, width) divided by the distance of the eyes; NaN without a face."""
    missing = (float("nan"), float("nan"))
    rows = [missing if face is None else tuple(mouth_shape(face)) for face in found]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 2)


def with_room(face: UInt8[np.ndarray, "r r 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The aligned face stretched back to 3:4, padded by replicating its edges."""
    stretched = cv2.resize(face, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return cv2.copyMakeBorder(stretched, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
