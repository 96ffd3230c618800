"""Identity across cuts: embeddings of faces, and clustering of tracks into persons."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from latentsync.faces.align import SmoothAligner, align
from latentsync.faces.detectors.base import (
    Face,
    IdentityEmbedder,
    five_points,
    overlap,
    three_points,
)
from latentsync.faces.tracking.clothes import Colours, likeness
from latentsync.faces.warp import warp

FACE_SIDE = 64
# Rows of the aligned face above the painted region, which speech changes.
TOP, BOTTOM = 2, 32
GRID = (4, 6)  # rows and columns of cells with averaged colours
# Weight of the mean colour, which light and camera change, relative to the pattern.
LIGHT_SHARE = 0.25
# Both eyes, nose, mouth corners in the 112x112 input of face recognition networks.
RECOGNITION_SIDE = 112
RECOGNITION_FIVE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
NEVER = 1e6  # distance of two faces in the same frame
# Without embeddings, faces are one person's if their boxes overlap by this much.
SAME_PLACE = 0.1


@dataclass(frozen=True, slots=True)
class ColorEmbedder:
    """Colours of hair, forehead and eyes: distinguishes people by appearance without weights.

    Robust to cuts, sizes and some change of light (95 % of synthetic people are below 4.5, two real
    ones 18 apart). Strangers with similar hair and skin, one synthetic pair in five, are confused.
    """

    limit: float = 5.0

    @property
    def cache_key(self) -> str:
        return f"colors {self.limit}"

    def __call__(
        self, frame: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> Float[np.ndarray, " d"] | None:
        """CIE Lab means, 0 to 100 and about -128 to 127, of the cells of the upper face."""
        if not face.can_be_aligned:
            return None
        placement = SmoothAligner(FACE_SIDE).place(three_points(face))
        upper = align(frame, placement, FACE_SIDE)[TOP:BOTTOM].astype(np.float32) / 255
        lab = cv2.cvtColor(upper, cv2.COLOR_RGB2LAB)
        cells = np.einsum("crw,rwk->ck", _cell_weights(), lab)
        cells -= (1 - LIGHT_SHARE) * cells.mean(axis=0)
        return cells.reshape(-1) / np.sqrt(len(cells))


@lru_cache(maxsize=1)
def _cell_weights() -> Float[np.ndarray, "c r w"]:
    """For every cell the weights of a mean over its part inside an oval face."""
    rows, columns = np.mgrid[TOP:BOTTOM, :FACE_SIDE] + 0.5
    middle = FACE_SIDE / 2
    oval = ((columns - middle) / (0.46 * FACE_SIDE)) ** 2 + ((rows - middle) / middle) ** 2 < 1
    down = ((rows - TOP) * GRID[0] / (BOTTOM - TOP)).astype(int)
    across = (columns * GRID[1] / FACE_SIDE).astype(int)
    cells = [
        oval & (down == row) & (across == column)
        for row in range(GRID[0])
        for column in range(GRID[1])
    ]
    return np.stack([cell / cell.sum() for cell in cells if cell.any()]).astype(np.float32)


class SFace:
    """A face recognition network as an ONNX file, such as SFace.

    `limit` is a distance of unit vectors, from which the same clothes take up to `same_clothes`. On
    real clips with several tracks any limit from 1.09 to 1.16 gives the same persons; of pairs of
    tracks of different clips .34 % are below 1.11.
    """

    limit = 1.11
    same_clothes = 0.1

    def __init__(self, path: Path | str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"face recognition model {path} does not exist: give SFace's ONNX file, or none"
            )
        self.path = Path(path)
        try:
            self.network = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise ValueError(f"{path} is no ONNX network that OpenCV reads: {error}") from error

    @cached_property
    def cache_key(self) -> str:
        digest = hashlib.blake2b(self.path.read_bytes(), digest_size=16).hexdigest()
        return f"{digest} {self.limit} {self.same_clothes}"

    def __reduce__(self) -> tuple:
        return SFace, (self.path,)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> Float[np.ndarray, " d"]:
        """A unit vector."""
        return self.embed(recognition_crop(frame, face))

    def embed(self, picture: UInt8[np.ndarray, "112 112 3"]) -> Float[np.ndarray, " d"]:
        """The same from a `recognition_crop`."""
        # The file lists its weights as inputs too, so OpenCV needs the name of the image input.
        self.network.setInput(cv2.dnn.blobFromImage(picture), "data")
        vector = self.network.forward().reshape(-1)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def crop(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> UInt8[np.ndarray, "112 112 3"]:
        return recognition_crop(frame, face)


def recognition_crop(
    frame: UInt8[np.ndarray, "h w 3"], face: Face
) -> UInt8[np.ndarray, "112 112 3"]:
    """The input of face recognition networks; ValueError for a face without five points."""
    matrix = nearest_similarity(five_points(face), RECOGNITION_FIVE)
    return warp(frame, matrix, (RECOGNITION_SIDE, RECOGNITION_SIDE))


def nearest_similarity(
    points: Float[np.ndarray, "n 2"], targets: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
    """Least-squares rotation, scale and shift from the points to the targets."""
    source, target = points @ [1, 1j], targets @ [1, 1j]
    centred = source - source.mean()
    factor = np.vdot(centred, target - target.mean()) / max(np.vdot(centred, centred).real, 1e-12)
    shift = target.mean() - factor * source.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def mean_direction(embeddings: Sequence[Float[np.ndarray, " d"]]) -> Float[np.ndarray, " d"]:
    """The unit vector of their mean."""
    mean = np.mean(embeddings, axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


@dataclass(frozen=True, slots=True)
class Appearance:
    """What clustering needs of a track: frames `first` to `end` (exclusive), boxes, embedding, and
    colours of the clothes, if known."""

    first: int
    end: int
    first_box: Float[np.ndarray, "4"]
    last_box: Float[np.ndarray, "4"]
    embedding: Float[np.ndarray, " d"] | None
    clothes: Colours | None = None


def clothes_weight(embedder: IdentityEmbedder | None) -> float:
    """How much clothes count beside an embedder's distances; 0 unless it says so."""
    return float(getattr(embedder, "same_clothes", 0.0))


def number_people(
    appearances: Sequence[Appearance], *, limit: float, same_clothes: float = 0.0
) -> list[int]:
    """The person of each appearance: 0, 1, ... by first frame, larger faces first.

    Two groups are one person if their mean embedding distance is below `limit`, nearest first;
    nobody occurs twice in a frame. Clothes of the same colours take up to `same_clothes` from a
    distance; other clothes part nobody. Position is ignored, because strangers share it in shot and
    counter-shot, except for faces without an embedding: they join the last face at their position.
    """
    known = [each for each in appearances if each.embedding is not None]
    groups = _by_embedding(known, limit, same_clothes)
    for each in sorted(appearances, key=lambda each: each.first):
        if each.embedding is None:
            _by_place(each, groups)
    place = {id(each): index for index, each in enumerate(appearances)}
    groups.sort(
        key=lambda group: min(
            (each.first, -_area(each.first_box), place[id(each)]) for each in group
        )
    )
    number = {id(each): index for index, group in enumerate(groups) for each in group}
    return [number[id(each)] for each in appearances]


def _by_embedding(
    seen: Sequence[Appearance], limit: float, same_clothes: float
) -> list[list[Appearance]]:
    """Average-link clusters whose members are never in the same frame."""
    if len(seen) < 2:
        return [list(seen)] if seen else []
    embeddings = np.stack([each.embedding for each in seen if each.embedding is not None]).astype(
        np.float64
    )
    apart = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    if same_clothes:
        alike = likeness([each.clothes for each in seen])
        apart = np.maximum(apart - same_clothes * alike, 0)
    first, end = (np.array([getattr(each, name) for each in seen]) for name in ("first", "end"))
    # One such pair raises the mean distance of two clusters above any limit.
    together = (first[:, None] < end[None]) & (first[None] < end[:, None])
    apart = np.where(together, NEVER, apart)
    np.fill_diagonal(apart, 0)
    labels = fcluster(linkage(squareform(apart), "average"), limit, "distance")
    return [
        [each for each, mark in zip(seen, labels, strict=True) if mark == label]
        for label in np.unique(labels)
    ]


def _by_place(seen: Appearance, groups: list[list[Appearance]]) -> None:
    """Add a face without an embedding to the group last seen at its position, else to a new one."""
    best, best_share = None, SAME_PLACE
    for group in groups:
        if any(seen.first < other.end and other.first < seen.end for other in group):
            continue
        before = [other for other in group if other.end <= seen.first]
        if before:
            latest = max(before, key=lambda other: other.end)
            share = float(overlap(seen.first_box, latest.last_box[None])[0])
            if share > best_share:
                best, best_share = group, share
    if best is None:
        groups.append([seen])
    else:
        best.append(seen)


def _area(box: Float[np.ndarray, "4"]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
