"""The default detector: YuNet detects faces, FaceMesh decides which can be redrawn.

The mesh alone is unreliable: on heads turned away or bowed, or when lost, it converges on a cheek
or a neck with full confidence. YuNet's five points are mostly correct even there, so a mesh that
disagrees with them is discarded, and the face counts as seen, without landmarks. A low mesh score
means less: on bowed heads and in bad light it is low although the mesh is correct, so for faces
towards the camera it is accepted if both agree well.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import (
    FIVE,
    Face,
    FaceDetector,
    IdentityEmbedder,
    five_points,
    overlap,
)
from latentsync.faces.detectors.facemesh import MeshDetector, mesh_roi, roi_matrix
from latentsync.faces.detectors.model_files import OPENCV_ZOO, SFACE, YUNET, NotFetched, model_path
from latentsync.faces.shape import five_yaw
from latentsync.faces.tracking.identity import SFace
from latentsync.faces.warp import warp

logger = logging.getLogger(__name__)

Frame = UInt8[np.ndarray, "h w 3"]
Seen = Float[np.ndarray, "15"]  # x0, y0, x1, y1, five points, score

FALLBACK = (
    "faces are found by the mesh's own finder, which misses more of them, and persons are told "
    "apart by colours, which is often wrong"
)
# Size of the mesh's input square relative to the box: the best one for turned and bowed heads.
ROI_SCALE = 1.15
MAX_SHRINK, MAX_SIDE = 3, 640  # minimum downscaling of large frames, up to this side
NEAR_SIDE, NEAR_REACH = 96, 2.0  # crop around one face: side in pixels, and in sizes of the face
NEAR_SCORE = 0.5  # minimum score of a face detected in the last frame
SAME_FACE = 0.3
# Maximum distance of the five points between mesh and YuNet, in sizes of the face. For frontal
# faces on real clips 99 % are below .10. A mesh accepted in the last frame gets more tolerance.
AGREES, STILL_AGREES = 0.2, 0.3
# The same for a mesh with a low score; YuNet must be confident, the head must face the camera, and
# the picture must not be dark (levels, 0 to 255).
UNSURE_AGREES, UNSURE_STILL_AGREES = 0.15, 0.2
SURE_SCORE, FACING_YAW, DARK = 0.8, 35.0, 20.0
MAX_GROWTH = 1.5  # maximum growth of a face between frames; anything larger is another one
MOVES_AT_MOST = 0.3  # per frame of a mesh not confirmed by YuNet, in sizes of the face
# Easy faces are checked by YuNet every third frame only, to make tracking cheaper.
CHECK_EVERY, PLAIN_SCORE, PLAIN_MOVE, PLAIN_YAW = 3, 0.9, 0.08, 30.0
CALM_MOVE = 0.03  # in sizes of the face; below it, the frame between is skipped


def default_detector(
    *,
    cache_dir: Path | str | None = None,
    yunet_path: Path | str | None = None,
    sface_path: Path | str | None = None,
    detector_path: Path | str | None = None,
    landmark_path: Path | str | None = None,
    side: int = 480,
    min_score: float = 0.7,
) -> FaceDetector:
    """YuNet, FaceMesh and SFace.

    If the files of YuNet and SFace are unavailable, the mesh with its own detector, and colours as
    identity; this is logged once and noted for plan and report.
    """
    make_mesh = partial(
        MeshDetector,
        cache_dir=cache_dir,
        detector_path=detector_path,
        landmark_path=landmark_path,
    )
    try:
        yunet = model_path(YUNET, OPENCV_ZOO, cache_dir, yunet_path)
        sface = model_path(SFACE, OPENCV_ZOO, cache_dir, sface_path)
    except NotFetched as error:
        logger.warning("%s; until then %s", error, FALLBACK)
        return make_mesh(notes=(f"YuNet and SFace are not there: {FALLBACK}",))
    return YuNetDetector(yunet, make_mesh(), identity=SFace(sface), side=side, min_score=min_score)


class YuNet:
    """OpenCV's FaceDetectorYN on RGB frames of any size."""

    def __init__(self, path: Path, *, side: int, min_score: float) -> None:
        self.side, self.min_score = side, min_score
        level = cv2.utils.logging.getLogLevel()
        # OpenCV 5 warns at every start about an unavailable target that was not requested.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self.frames, self.parts = (
                cv2.FaceDetectorYN.create(str(path), "", (side, side), score)
                for score in (min_score, min(NEAR_SCORE, min_score))
            )
        except cv2.error as error:
            raise ValueError(f"{path} is no face detector that OpenCV reads: {error}") from error
        finally:
            cv2.utils.logging.setLogLevel(level)
        self.parts.setInputSize((NEAR_SIDE, NEAR_SIDE))

    def __call__(self, frame: Frame) -> Float[np.ndarray, "n 15"]:
        """All faces of a frame, best first."""
        height, width = frame.shape[:2]
        longest = max(height, width)
        side = max(self.side, min(longest / MAX_SHRINK, MAX_SIDE))
        scale = min(side / longest, 1.0) if longest > self.side else self.side / longest
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        self.frames.setInputSize(size)
        return _rows(self.frames, picture, (width / size[0], height / size[1]), (0.0, 0.0))

    def near(self, frame: Frame, box: Float[np.ndarray, "4"]) -> Seen | None:
        """The face at or near a box; None if there is none."""
        center, reach = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max()) * NEAR_REACH / 2
        scale = NEAR_SIDE / (2 * reach)
        corner = center - reach
        matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
        picture = warp(frame, matrix, (NEAR_SIDE, NEAR_SIDE))
        found = _rows(self.parts, picture, (1 / scale, 1 / scale), tuple(corner))
        shared = overlap(box, found[:, :4]) if len(found) else np.zeros(0)
        growth = np.ptp(found[:, :4].reshape(-1, 2, 2), axis=1).max(axis=1) / (
            2 * reach / NEAR_REACH
        )
        shared[np.maximum(growth, 1 / np.maximum(growth, 1e-9)) > MAX_GROWTH] = 0
        return found[int(shared.argmax())] if (shared > SAME_FACE).any() else None


def _rows(
    network: cv2.FaceDetectorYN,
    picture: Frame,
    scale: tuple[float, float],
    corner: tuple[float, ...],
) -> Float[np.ndarray, "n 15"]:
    found = network.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    rows = np.zeros((0, 15)) if found is None else found.astype(np.float64)
    rows[:, 2:4] += rows[:, :2]
    rows[:, :14] = rows[:, :14] * np.tile(scale, 7) + np.tile(corner, 7)
    return rows


class YuNetDetector(FaceDetector):
    """Faces have the scheme "mesh" if they can be redrawn, "five" if they are only detected."""

    def __init__(
        self,
        path: Path | str,
        mesh: MeshDetector,
        *,
        identity: IdentityEmbedder | None = None,
        side: int = 480,
        min_score: float = 0.7,
    ) -> None:
        self.path, self.mesh, self._identity = Path(path), mesh, identity
        self.find = YuNet(self.path, side=side, min_score=min_score)

    @cached_property
    def cache_key(self) -> str:
        digest = hashlib.blake2b(self.path.read_bytes(), digest_size=16).hexdigest()
        who = "colors 2" if self._identity is None else self._identity.cache_key
        return (
            f"yunet 3 {self.find.side} {self.find.min_score} {digest} {who} {self.mesh.cache_key}"
        )

    @property
    def identity(self) -> IdentityEmbedder | None:
        return self._identity

    def __reduce__(self) -> tuple:
        # Networks of OpenCV cannot be sent to another process: it reads its own.
        return _rebuild, (
            self.path,
            self.mesh,
            self._identity,
            self.find.side,
            self.find.min_score,
        )

    def __call__(self, frame: Frame) -> list[Face]:
        return [self.settle(frame, seen) for seen in self.find(frame)]

    def others(self, frame: Frame, known: Sequence[Face]) -> list[Face]:
        boxes = np.array([face.box for face in known]).reshape(-1, 4)
        return [
            self.settle(frame, seen)
            for seen in self.find(frame)
            if not (overlap(seen[:4], boxes) > SAME_FACE).any()
        ]

    def settle(self, frame: Frame, seen: Seen) -> Face:
        """The mesh of a YuNet detection, or the detection alone."""
        five = seen[4:14].reshape(5, 2)
        side = ROI_SCALE * float((seen[2:4] - seen[:2]).max())
        roi = roi_matrix(five.mean(axis=0), side, five[1] - five[0])
        # The second pass halves the noise.
        mesh = self.mesh.fit_anyway(frame, mesh_roi(self.mesh.fit_anyway(frame, roi).points))
        if self.is_believed(frame, mesh, seen, AGREES, UNSURE_AGREES):
            return replace(mesh, five=five)
        return Face(seen[:4], five, float(seen[14]), FIVE, five=five)

    def is_believed(
        self, frame: Frame, mesh: Face, seen: Seen, agrees: float, unsure_agrees: float
    ) -> bool:
        """Whether a mesh agrees with YuNet's five points, within a tolerance by its score."""
        if mesh.score >= self.mesh.min_score:
            return disagreement(mesh, seen) < agrees
        faces_camera = abs(five_yaw(seen[4:14].reshape(5, 2))) < FACING_YAW
        sure = seen[14] > SURE_SCORE and disagreement(mesh, seen) < unsure_agrees
        return bool(faces_camera and sure and brightness(frame, seen[:4]) > DARK)

    def refine(self, frame: Frame, face: Face) -> Face | None:
        mesh, box = None, face.box
        if face.can_be_aligned:
            mesh = self.mesh.fit_anyway(frame, mesh_roi(face.points))
            if face.age < CHECK_EVERY - 1 and self._is_plain(face, mesh):
                return replace(mesh, age=face.age + 1)
            box = mesh.box if mesh.score >= self.mesh.min_score else box
        seen = self.find.near(frame, box)
        calm = mesh is not None and movement(face, mesh) < MOVES_AT_MOST
        if seen is None and box is not face.box and not calm:
            seen = self.find.near(frame, face.box)
        if seen is None:
            is_sure = mesh is not None and mesh.score >= self.mesh.min_score
            return replace(mesh, age=CHECK_EVERY) if mesh is not None and is_sure and calm else None
        if mesh is not None and self.is_believed(
            frame, mesh, seen, STILL_AGREES, UNSURE_STILL_AGREES
        ):
            return replace(mesh, five=seen[4:14].reshape(5, 2))
        return self.settle(frame, seen)

    def _is_plain(self, before: Face, mesh: Face) -> bool:
        """A confident, calm mesh of a head facing the camera: none of these ever failed."""
        return (
            mesh.score > PLAIN_SCORE
            and movement(before, mesh) < PLAIN_MOVE
            and abs(self.mesh.yaw(mesh)) < PLAIN_YAW
        )

    def is_calm(self, before: Face, after: Face) -> bool:
        if not (before.can_be_aligned and after.can_be_aligned):
            return False
        if movement(before, after) >= CALM_MOVE:
            return False
        # Only a plain mesh goes unchecked, and becomes older.
        return 0 < after.age < CHECK_EVERY or self._is_plain(before, after)

    def opening(self, face: Face) -> float | None:
        return self.mesh.opening(face) if face.can_be_aligned else None

    def yaw(self, face: Face) -> float | None:
        """The larger of both estimates: the mesh does not follow into a profile."""
        turns = [self.mesh.yaw(face)] if face.can_be_aligned else []
        turns += [] if face.five is None else [five_yaw(face.five)]
        return max(turns, key=abs, default=None)


def _rebuild(
    path: Path,
    mesh: MeshDetector,
    identity: IdentityEmbedder | None,
    side: int,
    min_score: float,
) -> YuNetDetector:
    return YuNetDetector(path, mesh, identity=identity, side=side, min_score=min_score)


def disagreement(mesh: Face, seen: Seen) -> float:
    """Maximum distance of the five points from the mesh's, in sizes of the face."""
    size = float((seen[2:4] - seen[:2]).max())
    away = np.linalg.norm(five_points(mesh) - seen[4:14].reshape(5, 2), axis=1)
    return float(away.max()) / max(size, 1e-9)


def brightness(frame: Frame, box: Float[np.ndarray, "4"]) -> float:
    """The mean level of every fourth pixel; 0 outside the frame."""
    x0, y0, x1, y1 = np.maximum(box, 0).astype(int)
    part = frame[y0:y1:4, x0:x1:4]
    return float(part.mean()) if part.size else 0.0


def movement(before: Face, after: Face) -> float:
    """Maximum movement of eyes, nose or mouth, in sizes of the face."""
    size = max(float((before.box[2:] - before.box[:2]).max()), 1e-9)
    moved = np.linalg.norm(five_points(after) - five_points(before), axis=1)
    return float(moved.max()) / size
