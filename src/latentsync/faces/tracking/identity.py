"""Who is who across cuts: what a face looks like, as numbers, and tracks gathered into persons."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

from latentsync.faces.align import SmoothAligner, align
from latentsync.faces.detectors.base import Face, overlap, three_points

FACE_SIDE = 64
# Rows of the aligned face over the painted region, which speech moves.
TOP, BOTTOM = 2, 32
GRID = (4, 6)  # rows and columns that colours are averaged in
# How much of the mean colour, which light and camera change, counts beside the pattern.
LIGHT_SHARE = 0.25
# Rows of the mesh and of the 68 points; left is the image's: eyes, nose tip, corners of the mouth.
FIVE_POINTS: dict[str, list[list[int]]] = {
    "mesh": [[33, 133], [263, 362], [4], [61], [291]],
    "68": [[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47], [30], [48], [54]],
}
# By position alone two faces are one person's if their boxes share this much of their area.
SAME_PLACE = 0.1


@runtime_checkable
class Embedder(Protocol):
    """What a face looks like: vectors of one person lie closer than `limit`."""

    @property
    def limit(self) -> float: ...

    def __call__(
        self, frame: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> Float[np.ndarray, " d"]: ...


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of hair, forehead and eyes: needs no weights, tells apart who looks different.

    Holds over cuts, sizes and some change of light (of drawn people 95 % stay under 4.5, two real
    ones lie 18 apart). Strangers with like hair and skin, one drawn pair in five, fall together.
    """

    limit: float = 5.0

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> Float[np.ndarray, " d"]:
        """CIE Lab means, 0 to 100 and about -128 to 127, of the cells of the upper face."""
        placement = SmoothAligner(FACE_SIDE).place(three_points(face))
        upper = align(frame, placement, FACE_SIDE)[TOP:BOTTOM].astype(np.float32) / 255
        lab = cv2.cvtColor(upper, cv2.COLOR_RGB2LAB)
        cells = np.einsum("crw,rwk->ck", _cell_weights(), lab)
        cells -= (1 - LIGHT_SHARE) * cells.mean(axis=0)
        return cells.reshape(-1) / np.sqrt(len(cells))


@lru_cache(maxsize=1)
def _cell_weights() -> Float[np.ndarray, "c r w"]:
    """For every cell the weights of a mean over the part of it that lies inside the oval face."""
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


class FaceEmbedder:
    """OpenCV's face recognition (SFace and its like), from the user's own ONNX file."""

    limit = 1.128  # between unit vectors: OpenCV's own threshold for SFace

    def __init__(self, path: Path | str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"face recognition model {path} does not exist: give SFace's ONNX file, or none"
            )
        self.path = Path(path)
        try:
            self.network = cv2.FaceRecognizerSF.create(str(path), "")
        except cv2.error as error:
            raise ValueError(f"{path} is no ONNX network that OpenCV reads: {error}") from error

    def __reduce__(self) -> tuple:
        return FaceEmbedder, (self.path,)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"], face: Face) -> Float[np.ndarray, " d"]:
        """A unit vector."""
        if face.scheme not in FIVE_POINTS:
            raise ValueError(
                f"face recognition stands on {list(FIVE_POINTS)} points, this face has "
                f"{face.scheme!r} points: choose another detector or no embedder"
            )
        five = [face.points[rows].mean(axis=0) for rows in FIVE_POINTS[face.scheme]]
        box = [*face.box[:2], *(face.box[2:] - face.box[:2])]
        row = np.array([*box, *np.concatenate(five), face.score], dtype=np.float32)
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        vector = self.network.feature(self.network.alignCrop(picture, row[None])).reshape(-1)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


@dataclass(frozen=True, slots=True)
class Appearance:
    """A track as far as telling persons apart needs it: frames `first` to `end`, not included."""

    first: int
    end: int
    first_box: Float[np.ndarray, "4"]
    last_box: Float[np.ndarray, "4"]
    look: Float[np.ndarray, " d"] | None


def number_people(appearances: Sequence[Appearance], *, limit: float) -> list[int]:
    """The person of each appearance: 0, 1, ... by first frame, larger faces first.

    Two are one person if their looks are closer than `limit`, up to twice that where one begins at
    the place the other had; without looks, if the place is the same. Nobody is in a frame twice.
    """
    order = sorted(
        range(len(appearances)),
        key=lambda index: (appearances[index].first, -_area(appearances[index].first_box)),
    )
    people: list[list[Appearance]] = []
    numbers = [0] * len(appearances)
    while order:
        first = appearances[order[0]].first
        group = [index for index in order if appearances[index].first == first]
        order = order[len(group) :]
        for index, person in zip(
            group, _assign([appearances[index] for index in group], people, limit), strict=True
        ):
            if person == len(people):
                people.append([])
            people[person].append(appearances[index])
            numbers[index] = person
    return numbers


def _assign(
    group: Sequence[Appearance], people: Sequence[Sequence[Appearance]], limit: float
) -> list[int]:
    """A person for each of those who appear at once, new ones numbered in order; least strange in
    all."""
    strange = np.array(
        [[_strangeness(seen, person, limit) for person in people] for seen in group]
    ).reshape(len(group), len(people))
    # As many new persons as there are faces, each just as strange as is allowed.
    columns = np.concatenate([strange.clip(max=2), np.ones((len(group), len(group)))], axis=1)
    _, chosen = linear_sum_assignment(columns)
    numbers, newest = [], len(people)
    for person in chosen.tolist():
        is_new = person >= len(people)
        numbers.append(newest if is_new else person)
        newest += is_new
    return numbers


def _strangeness(seen: Appearance, person: Sequence[Appearance], limit: float) -> float:
    """0 for the same look at the same place, under 1 for the same person."""
    if any(seen.first < other.end and other.first < seen.end for other in person):
        return float("inf")
    latest = max(person, key=lambda other: other.end)
    shared = float(overlap(seen.first_box, latest.last_box[None])[0])
    distances = [
        float(np.linalg.norm(seen.look - other.look))
        for other in person
        if seen.look is not None and other.look is not None
    ]
    if distances:
        return min(distances) / (limit * (1 + shared))
    return (1 - shared) / (1 - SAME_PLACE)


def _area(box: Float[np.ndarray, "4"]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
