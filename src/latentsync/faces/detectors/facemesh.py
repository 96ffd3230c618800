"""Face detector from BlazeFace for detection and FaceMesh (468 points) for landmarks."""

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import (
    Face,
    FaceDetector,
    IdentityEmbedder,
    bounding_box,
    overlap,
)
from latentsync.faces.detectors.blazeface import BlazeFace, read_network
from latentsync.faces.detectors.model_files import model_paths
from latentsync.faces.shape import mouth_shape, yaw_degrees
from latentsync.faces.warp import Matrix, invert, mean_scale, transform, warp

INPUT_SIZE = 192
ROI_SCALE = 1.5
LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners; left as in the image
SAME_FACE = 0.1  # minimum overlap of a detection with a known mesh to be the same face


class MeshDetector(FaceDetector):
    """One pass of BlazeFace, then two of FaceMesh; tracking a face takes one FaceMesh pass.

    The two model files are the given ones, or those in the cache, to which they are downloaded
    once.
    """

    def __init__(
        self,
        *,
        cache_dir: Path | str | None = None,
        detector_path: Path | str | None = None,
        landmark_path: Path | str | None = None,
        min_score: float = 0.5,
        identity: IdentityEmbedder | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.rebuild = partial(
            MeshDetector,
            cache_dir=cache_dir,
            detector_path=detector_path,
            landmark_path=landmark_path,
            min_score=min_score,
            identity=identity,
            notes=notes,
        )
        self._identity, self._notes = identity, notes
        self.model_files = model_paths(cache_dir, detector_path, landmark_path)
        detector, landmark = self.model_files
        self.find = BlazeFace(detector, min_score=min_score)
        self.network = read_network(landmark)
        self.min_score = min_score

    @cached_property
    def cache_key(self) -> str:
        """The two networks, the score and the identity embedder."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self.model_files:
            digest.update(path.read_bytes())
        who = "colors 2" if self._identity is None else self._identity.cache_key
        return f"mesh 3 {self.min_score} {digest.hexdigest()} {who}"

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    @property
    def identity(self) -> IdentityEmbedder | None:
        return self._identity

    def __reduce__(self) -> tuple:
        # OpenCV networks cannot be pickled: another process loads its own.
        return self.rebuild, ()

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        for candidates in self.find.levels(frame):
            faces = [face for found in candidates if (face := self.settle(frame, found))]
            if faces:
                return faces
        return []

    def others(self, frame: UInt8[np.ndarray, "h w 3"], known: Sequence[Face]) -> list[Face]:
        """The other faces in one pass over the whole frame: of 1/32 of its side or more."""
        boxes = np.array([face.box for face in known]).reshape(-1, 4)
        faces = []
        for found in self.find.first_look(frame):
            if (overlap(found[:4], boxes) > SAME_FACE).any():
                continue
            for closer in self.find.look_closer(frame, found):
                face = self.settle(frame, closer)
                if face and not (overlap(face.box, boxes) > SAME_FACE).any():
                    faces.append(face)
                    boxes = np.concatenate([boxes, face.box[None]])
        return faces

    def settle(
        self, frame: UInt8[np.ndarray, "h w 3"], found: Float[np.ndarray, "9"]
    ) -> Face | None:
        """The mesh of a detection; the second pass halves the noise."""
        first = self.fit(frame, detection_roi(found))
        return self.refine(frame, first) if first else None

    def refine(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> Face | None:
        return self.fit(frame, mesh_roi(face.points))

    def opening(self, face: Face) -> float:
        return mouth_shape(face).opening

    def yaw(self, face: Face) -> float:
        return yaw_degrees(face)

    def fit(self, frame: UInt8[np.ndarray, "h w 3"], roi: Matrix) -> Face | None:
        """The mesh inside a region of interest, None if the network sees no face."""
        face = self.fit_anyway(frame, roi)
        return face if face.score >= self.min_score else None

    def fit_anyway(self, frame: UInt8[np.ndarray, "h w 3"], roi: Matrix) -> Face:
        """The mesh inside a region of interest, regardless of its score."""
        picture = warp(frame, roi, (INPUT_SIZE, INPUT_SIZE))
        self.network.setInput(cv2.dnn.blobFromImage(picture, 1 / 255))
        flag, raw = self.network.forward(["conv2d_30", "conv2d_20"])
        score = float(1 / (1 + np.exp(-np.float64(flag.item()))))
        mesh = raw.reshape(-1, 3).astype(np.float64)
        points = transform(invert(roi), mesh[:, :2] - 0.5)
        return Face(bounding_box(points), points, score, "mesh", mesh[:, 2] / mean_scale(roi))


def detection_roi(found: Float[np.ndarray, "9"]) -> Matrix:
    left, right = found[4:6], found[6:8]
    center, side = (found[:2] + found[2:4]) / 2, (found[2:4] - found[:2]).max()
    return roi_matrix(center, side * ROI_SCALE, right - left)


def mesh_roi(points: Float[np.ndarray, "n 2"]) -> Matrix:
    """A square around the points, upright with the face."""
    along = points[RIGHT_EYE] - points[LEFT_EYE]
    along = along / np.linalg.norm(along)
    axes = np.stack([along, np.array([-along[1], along[0]])])
    low, high = (points @ axes.T).min(axis=0), (points @ axes.T).max(axis=0)
    center = (low + high) / 2 @ axes
    return roi_matrix(center, (high - low).max() * ROI_SCALE, along)


def roi_matrix(
    center: Float[np.ndarray, "2"], side: float, along: Float[np.ndarray, "2"]
) -> Matrix:
    """Matrix from frame to network input: a square of `side` with its upper edge along `along`."""
    scale = INPUT_SIZE / side
    cos, sin = along / np.linalg.norm(along) * scale
    linear = np.array([[cos, sin], [-sin, cos]])
    middle = np.full(2, (INPUT_SIZE - 1) / 2)
    return np.column_stack([linear, middle - linear @ center])
