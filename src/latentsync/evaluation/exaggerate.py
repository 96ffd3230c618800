"""Faces whose mouth moves by a factor further than it did, by warping the pictures."""

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latentsync.metrics.lips import shape_of

# The share of frames, those with the smallest opening, whose mean is the mouth at rest.
REST_SHARE = 0.1
# How far a point of the lips moves its surroundings, in widths of the mouth; the field is made on a
# coarse grid, as it is smooth.
REACH, GRID = 0.25, 48
# Weight of not moving: a pixel further than about two reaches from the lips stays.
STILL = 0.05

Faces = UInt8[np.ndarray, "f r r 3"]
Points = Float[Tensor, "f 40 2"]


def exaggerated_points(points: Points, factor: float) -> Points:
    """Points further from their position at rest by the factor; frames without a face stay NaN."""
    opening = shape_of(points)[:, 0]
    seen = torch.nonzero(~opening.isnan()).flatten()
    if not len(seen):
        return points
    count = max(1, round(REST_SHARE * len(seen)))
    rest = points[seen[opening[seen].argsort(stable=True)[:count]]].mean(dim=0)
    return rest + factor * (points - rest)


def exaggerated_faces(faces: Faces, points: Points, factor: float) -> Faces:
    """Aligned faces with the lips at `points`, in their pixels, moved as `exaggerated_points`."""
    moved = exaggerated_points(points, factor).numpy()
    y, x = np.mgrid[: faces.shape[1], : faces.shape[2]].astype(np.float32)
    tracks = zip(faces, points.numpy(), moved, strict=True)
    return np.stack([_pulled(*each, x=x, y=y) for each in tracks])


def _pulled(
    face: UInt8[np.ndarray, "r r 3"],
    points: Float[np.ndarray, "40 2"],
    moved: Float[np.ndarray, "40 2"],
    *,
    x: Float[np.ndarray, "r r"],
    y: Float[np.ndarray, "r r"],
) -> UInt8[np.ndarray, "r r 3"]:
    if not np.isfinite(moved).all():
        return face
    side = len(face)
    reach = REACH * float(np.ptp(points[:, 0]))
    coarse = (np.arange(GRID) + 0.5) * side / GRID - 0.5
    # The Gaussian around each point is a product of one along x and one along y, so that its sum
    # over points is a product of matrices.
    along_x, along_y = np.exp(-((coarse[:, None, None] - moved) ** 2) / (2 * reach**2)).T
    pulls = np.column_stack([moved - points, np.ones(len(points))])
    pulled_x, pulled_y, weight = (along_y.T @ (pull[:, None] * along_x) for pull in pulls.T)
    shift = np.stack([pulled_x, pulled_y], axis=-1) / (weight + STILL)[..., None]
    wide = cv2.resize(shift.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return cv2.remap(
        face, x - wide[..., 0], y - wide[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
