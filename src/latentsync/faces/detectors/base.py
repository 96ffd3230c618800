"""The face detector protocol; points are in frame pixels, numbered by a named scheme."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

# Indices of left brow, right brow, nose, by scheme; left and right as in the image. The alignment
# uses their means.
THREE_POINTS: dict[str, tuple[list[int], list[int], list[int]]] = {
    "106": ([43, 48, 49, 51, 50], [101, 102, 103, 104, 105], [74, 77, 83, 86]),
    "68": ([17, 18, 19, 20, 21], [22, 23, 24, 25, 26], [29, 30, 31, 35]),
    "mesh": ([70, 63, 105, 66, 107], [300, 293, 334, 296, 336], [5, 4, 48, 278]),
    "three": ([0], [1], [2]),
}
# Both eyes, nose, both mouth corners: the face is detected, but cannot be aligned.
FIVE = "five"
FIVE_POINTS: dict[str, list[list[int]]] = {
    "mesh": [[33, 133], [263, 362], [4], [61], [291]],
    "68": [[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47], [30], [48], [54]],
    FIVE: [[0], [1], [2], [3], [4]],
}


@dataclass(frozen=True, slots=True)
class Face:
    """A face detected in a frame; `box` is x0, y0, x1, y1.

    `depths`, if the scheme has them: distance of each point behind the middle of the head, in frame
    pixels. `five`: eyes, nose and mouth corners by the face detector, which are correct even on
    profiles, unlike a mesh.
    """

    box: Float[np.ndarray, "4"]
    points: Float[np.ndarray, "n 2"]
    score: float
    scheme: str
    depths: Float[np.ndarray, " n"] | None = None
    five: Float[np.ndarray, "5 2"] | None = None
    age: int = 0  # frames since the last detection

    @property
    def can_be_aligned(self) -> bool:
        """False if the face was detected without the landmarks needed to redraw it."""
        return self.scheme != FIVE

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.box
        return float((x1 - x0) * (y1 - y0))


@runtime_checkable
class IdentityEmbedder(Protocol):
    """Identity embeddings of faces: those of one person are closer than `limit`."""

    @property
    def limit(self) -> float: ...

    @property
    def cache_key(self) -> str:
        """Everything the embeddings depend on, other than frame and face."""
        ...

    def __call__(
        self, frame: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> Float[np.ndarray, " d"] | None:
        """The embedding, None if it cannot be computed."""
        ...


@runtime_checkable
class CropEmbedder(IdentityEmbedder, Protocol):
    """An embedder in two steps, `embed(crop(frame, face))`.

    A crop can be kept and embedded later, or never: a face that is alone in its video needs no
    identity.
    """

    def crop(
        self, frame: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> UInt8[np.ndarray, "side side 3"]: ...

    def embed(self, picture: UInt8[np.ndarray, "side side 3"]) -> Float[np.ndarray, " d"]: ...


@runtime_checkable
class FaceDetector(Protocol):
    """Detects and tracks faces.

    Subclasses omit the methods their points do not support; None means unknown, never a guess.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know about it, for plan and report."""
        return ()

    @property
    def cache_key(self) -> str | None:
        """Everything its faces and identities depend on besides the frames; None: not cacheable."""
        return None

    @property
    def identity(self) -> IdentityEmbedder | None:
        """Its identity embedder; None: compare colours."""
        return None

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        """All faces in an RGB frame."""
        raise NotImplementedError

    def refine(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> Face | None:
        """The same face in the next frame, or None if it is lost."""
        raise NotImplementedError

    def others(self, frame: UInt8[np.ndarray, "h w 3"], known: Sequence[Face]) -> list[Face]:
        """The other faces of an RGB frame; may include known ones."""
        return self(frame)

    def is_calm(self, before: Face, after: Face) -> bool:
        """Whether a face moved so little between two frames that it can be interpolated in between.

        If False, the frame between has to be processed.
        """
        return False

    def opening(self, face: Face) -> float | None:
        """Gap between the inner lips divided by the distance of the outer eye corners."""
        return None

    def yaw(self, face: Face) -> float | None:
        """Head yaw in degrees, -90 to 90; positive to the image's right."""
        return None


class FixedDetector(FaceDetector):
    """Given points: one triple for all frames, or one triple per call, in order."""

    def __init__(self, points: Sequence | np.ndarray) -> None:
        given = np.asarray(points, dtype=np.float64)
        if given.shape[-2:] != (3, 2) or given.ndim not in (2, 3):
            raise ValueError(
                "points must be three (x, y) pairs [left brow, right brow, nose], or a list of "
                f"such triples, one per frame; got shape {given.shape}"
            )
        self.points = given
        self.num_calls = 0

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        points = self.points
        if points.ndim == 3:
            if self.num_calls == len(points):
                raise ValueError(f"only {len(points)} triples of points given, frame is one more")
            points = points[self.num_calls]
        self.num_calls += 1
        return [Face(bounding_box(points), points, 1.0, "three")]

    def refine(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> Face | None:
        return self(frame)[0]

    def others(self, frame: UInt8[np.ndarray, "h w 3"], known: Sequence[Face]) -> list[Face]:
        return []  # the only face is known


def largest(faces: Sequence[Face]) -> Face | None:
    """The face with the largest box, None if there are none."""
    return max(faces, key=lambda face: face.area, default=None)


def three_points(face: Face) -> Float[np.ndarray, "3 2"]:
    """Left brow, right brow and nose, used by the alignment."""
    if face.scheme not in THREE_POINTS:
        raise ValueError(
            f"no alignment stands on {face.scheme!r} points, only on those of {list(THREE_POINTS)}"
        )
    return np.stack([face.points[index].mean(axis=0) for index in THREE_POINTS[face.scheme]])


def five_points(face: Face) -> Float[np.ndarray, "5 2"]:
    """Both eyes, nose, both mouth corners; left as in the image."""
    if face.scheme not in FIVE_POINTS:
        raise ValueError(
            f"the five points are known of {list(FIVE_POINTS)} points, this face has "
            f"{face.scheme!r} points: choose another detector"
        )
    # One sum instead of five means, which take four times as long.
    indices, starts, counts = _five_indices(face.scheme)
    return np.add.reduceat(face.points[indices], starts, axis=0) / counts


@lru_cache(maxsize=len(FIVE_POINTS))
def _five_indices(
    scheme: str,
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, "5"], Int[np.ndarray, "5 1"]]:
    """The indices of all five groups in a row, where each begins, and its size."""
    groups = FIVE_POINTS[scheme]
    counts = np.array([len(group) for group in groups])
    return np.concatenate(groups), np.cumsum(counts) - counts, counts[:, None]


def midway(one: Face, other: Face) -> Face:
    """A face interpolated halfway between two frames."""
    depths, five = other.depths, other.five
    return replace(
        other,
        box=(one.box + other.box) / 2,
        points=(one.points + other.points) / 2,
        depths=None if one.depths is None or depths is None else (one.depths + depths) / 2,
        five=None if one.five is None or five is None else (one.five + five) / 2,
    )


def bounding_box(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "4"]:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def overlap(
    box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union of a box with each of the boxes."""
    corner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(corner, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / np.maximum(areas - shared, 1e-9)


def suppressed(
    boxes: Float[np.ndarray, "n 4"], max_overlap: float
) -> Iterator[Int[np.ndarray, " k"]]:
    """Non-maximum suppression of boxes, best first.

    For every box kept its index, followed by those it suppresses by overlapping them.
    """
    left = np.arange(len(boxes))
    while len(left):
        best, others = left[0], left[1:]
        same = overlap(boxes[best], boxes[others]) > max_overlap
        yield np.concatenate([left[:1], others[same]])
        left = others[~same]
