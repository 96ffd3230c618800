"""Hand detection in OpenCV: MediaPipe's palm detector, and its hand landmarks for tracking."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import overlap
from latentsync.faces.detectors.blazeface import read_network
from latentsync.faces.warp import Matrix, invert, transform, warp

Frame = UInt8[np.ndarray, "h w 3"]
Points = Float[np.ndarray, "21 2"]

PALM_SIZE, HAND_SIZE = 192, 224
GRIDS = ((24, 2), (12, 6))  # cells per side, anchors per cell
# Size of the hand network's input square relative to the box of a palm or of joints, and its shift
# towards the fingers.
FROM_PALM, PALM_SHIFT = 2.6, 0.5
FROM_JOINTS, JOINTS_SHIFT = 2.0, 0.1
JOINTS = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # without the outer joints of each finger
WRIST, INDEX, MIDDLE, RING = 0, 5, 9, 13
SAME_PALM, SAME_HAND = 0.3, 0.4


@dataclass(frozen=True, slots=True)
class Hand:
    """Wrist and finger joints in frame pixels, and the network's confidence."""

    points: Points
    presence: float

    @property
    def size(self) -> float:
        """Distance from the wrist to the middle knuckle."""
        return float(np.linalg.norm(self.points[MIDDLE] - self.points[WRIST]))

    @property
    def box(self) -> Float[np.ndarray, "4"]:
        return np.concatenate([self.points.min(axis=0), self.points.max(axis=0)])


class HandFinder:
    """`look` detects the hands in a square of a frame, `follow` tracks one into the next frame."""

    def __init__(
        self,
        palm: Path,
        hand: Path,
        *,
        min_palm: float = 0.5,
        min_presence: float = 0.5,
        min_followed: float = 0.2,
    ) -> None:
        self.palm, self.hand = read_network(palm), read_network(hand)
        self.min_logit = float(np.log(min_palm / (1 - min_palm)))
        self.min_presence = min_presence
        self.min_followed = min_followed  # a known hand that is blurred scores less than a new one
        self.anchors = palm_anchors()

    def look(
        self, frame: Frame, middle: Float[np.ndarray, "2"], side: float, known: Sequence[Hand] = ()
    ) -> list[Hand]:
        """The hands in the upright square around `middle`, without the known ones."""
        hands = list(known)
        for points in self.palms(frame, roi(middle, side, np.array([0.0, -1.0]), PALM_SIZE)):
            found = self.read(frame, palm_roi(points), least=self.min_presence)
            if found is not None and not is_among(found, hands):
                hands.append(found)
        return hands[len(known) :]

    def follow(self, frame: Frame, hand: Hand) -> Hand | None:
        """The same hand a frame later, None if it is lost."""
        return self.read(frame, joints_roi(hand.points), least=self.min_followed)

    def is_sure(self, hand: Hand) -> bool:
        """Whether a hand that is followed would be found anew."""
        return hand.presence >= self.min_presence

    def palms(self, frame: Frame, matrix: Matrix) -> list[Float[np.ndarray, "9 2"]]:
        """Corners of the box and seven points of every palm, in frame pixels, best first."""
        picture = warp(frame, matrix, (PALM_SIZE, PALM_SIZE))
        self.palm.setInput(cv2.dnn.blobFromImage(picture, 1 / 255))
        logits, raw = self.palm.forward(["Identity_1", "Identity"])
        logits = logits.reshape(-1)
        sure = np.flatnonzero(logits >= self.min_logit)
        sure = sure[np.argsort(-logits[sure])]
        values = raw.reshape(-1, 9, 2)[sure].astype(np.float64)
        centers, half = values[:, 0] + self.anchors[sure], values[:, 1] / 2
        points = values[:, 2:] + self.anchors[sure, None]
        boxes = np.concatenate([centers - half, centers + half], axis=1)
        kept: list[int] = []
        for place, box in enumerate(boxes):
            if not (overlap(box, boxes[kept]) > SAME_PALM).any():
                kept.append(place)
        back = invert(matrix)
        return [
            transform(back, np.concatenate([boxes[i].reshape(2, 2), points[i]]) - 0.5) for i in kept
        ]

    def read(self, frame: Frame, matrix: Matrix, *, least: float) -> Hand | None:
        """The hand in the square that `matrix` makes of the frame, if its presence is `least`."""
        picture = warp(frame, matrix, (HAND_SIZE, HAND_SIZE))
        self.hand.setInput(cv2.dnn.blobFromImage(picture, 1 / 255))
        points, presence = self.hand.forward(["Identity", "Identity_1"])
        sure = float(presence.reshape(-1)[0])
        if sure < least:
            return None
        inside = points.reshape(21, 3)[:, :2].astype(np.float64)
        hand = Hand(transform(invert(matrix), inside - 0.5), sure)
        return hand if hand.size > 1 else None


def palm_anchors() -> Float[np.ndarray, "2016 2"]:
    """Centres of the anchors, in pixels of the palm detector's input."""
    grids = []
    for cells, per_cell in GRIDS:
        y, x = np.mgrid[:cells, :cells]
        centers = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells * PALM_SIZE
        grids.append(np.repeat(centers, per_cell, axis=0))
    return np.concatenate(grids)


def is_among(hand: Hand, hands: Sequence[Hand]) -> bool:
    boxes = np.array([other.box for other in hands]).reshape(-1, 4)
    return bool((overlap(hand.box, boxes) > SAME_HAND).any())


def palm_roi(palm: Float[np.ndarray, "9 2"]) -> Matrix:
    """Frame => hand network input, from a palm: corners of the box, wrist, ..., knuckle."""
    corners, wrist, knuckle = palm[:2], palm[2], palm[4]
    return fingers_up(corners, knuckle - wrist, scale=FROM_PALM, shift=PALM_SHIFT)


def joints_roi(points: Points) -> Matrix:
    """Frame => hand network input, from the hand's joints."""
    knuckles = (points[INDEX] + 2 * points[MIDDLE] + points[RING]) / 4
    return fingers_up(
        points[JOINTS], knuckles - points[WRIST], scale=FROM_JOINTS, shift=JOINTS_SHIFT
    )


def fingers_up(
    points: Float[np.ndarray, "n 2"], up: Float[np.ndarray, "2"], *, scale: float, shift: float
) -> Matrix:
    """Frame => the square around the points, rotated so that `up` points upwards."""
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    axes = np.array([[-up[1], up[0]], -up])  # right and down
    if len(points) == 2:  # corners of an upright box, which is not rotated
        low, high = points.min(axis=0), points.max(axis=0)
        middle, sides = (low + high) / 2, high - low
    else:
        inside = points @ axes.T
        low, high = inside.min(axis=0), inside.max(axis=0)
        middle, sides = (low + high) / 2 @ axes, high - low
    middle = middle + up * shift * sides[1]
    return roi(middle, scale * float(sides.max()), up, HAND_SIZE)


def roi(
    middle: Float[np.ndarray, "2"], side: float, up: Float[np.ndarray, "2"], size: int
) -> Matrix:
    """Frame => a picture of `size` pixels of the square around `middle`, with `up` upwards."""
    linear = size / max(side, 1e-6) * np.array([[-up[1], up[0]], -up])
    return np.column_stack([linear, size / 2 - 0.5 - linear @ middle])
