"""Occlusion of faces: by hands, or by anything a user's segmenter detects.

A masker gives the share of every pixel of the square face that is covered. These masks are smoothed
over time and dilated; covered pixels keep the source.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.hands import Hand, HandFinder
from latentsync.faces.detectors.model_files import HANDS, NotFetched, model_path
from latentsync.faces.placement import Placement
from latentsync.faces.warp import invert, mean_scale, transform, warp

logger = logging.getLogger(__name__)

Frame = UInt8[np.ndarray, "h w 3"]
Covered = Float[np.ndarray, "s s"]

SIDE = 128  # side of the masks in pixels
# Side of the square around the mouth searched for hands, in heights of the face crop.
REACH = 2.4
MOUTH = np.array([[0.5, 0.65]])  # in the square face
# The hull of the joints is dilated by this share of wrist to middle knuckle, to cover the skin.
FLESH = 0.16
# Limits for a new hand: presence, and wrist to middle knuckle in heights of the face crop.
SURE, LARGEST = 0.8, 0.36
# Share of a new hand's joints that may lie outside the frame, where the network invents hands. Of
# 15 real hands cut by an edge 14 have less, an invented one had 0.38.
OUTSIDE = 0.35
HELD = 4  # longest gap in frames that is filled between two detections
NOT_THERE = "the networks that see hands are not there: mouths are painted over hands before them"


@dataclass(frozen=True, slots=True)
class Occluder:
    """Occlusion of a face: `covered`, the hidden share of each pixel of the square face; hands.

    Shares are 0 to 1; `hands` are those tracked, if any.
    """

    covered: Covered
    hands: tuple[Hand, ...] = ()

    @property
    def confidence(self) -> float:
        """Presence of the surest hand; 1 without hands."""
        return max((hand.presence for hand in self.hands), default=1.0)


@runtime_checkable
class OcclusionMasker(Protocol):
    """Detects occlusion of faces. While there is none, it is called every `every` frames."""

    @property
    def every(self) -> int: ...

    @property
    def cache_key(self) -> str:
        """Everything its masks depend on, other than frame and placement."""
        ...

    def __call__(
        self, frame: Frame, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        """The occlusion of a face in an RGB frame, None if there is none.

        `before` is the result for a neighbouring frame, None without occlusion or frame.
        """
        ...


class HandMasker:
    """Detects palms around the mouth, and tracks the hands found."""

    every = 4

    def __init__(self, palm: Path | str, hand: Path | str) -> None:
        self.paths = Path(palm), Path(hand)
        self.finder = HandFinder(*self.paths)

    @cached_property
    def cache_key(self) -> str:
        return f"hands 3 {_digest(*self.paths)}"

    def __reduce__(self) -> tuple:
        return HandMasker, self.paths  # OpenCV networks cannot be pickled

    def __call__(
        self, frame: Frame, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        known = () if before is None else before.hands
        followed = [self.finder.follow(frame, hand) for hand in known]
        hands = [hand for hand in followed if hand is not None]
        sure = [hand for hand in hands if self.finder.is_sure(hand)]
        if len(sure) < max(len(known), 1):
            back = invert(placement.square_matrix(1))
            height = float(np.linalg.norm(back[:, 1]))
            middle = transform(back, MOUTH - 0.5)[0]
            found = self.finder.look(frame, middle, REACH * height, hands)
            hands += [hand for hand in found if is_hand(hand, height, frame.shape[:2])]
        covered = hands_in_face(hands, placement)
        return Occluder(covered, tuple(hands)) if covered.any() else None


def is_hand(hand: Hand, height: float, frame_size: tuple[int, int]) -> bool:
    """False for false detections on turned, small and blurred faces, and at the frame's edge.

    `height` is the face crop's, `frame_size` the frame's (h, w).
    """
    if hand.presence < SURE or hand.size > LARGEST * height:
        return False
    return share_outside(hand, frame_size) <= OUTSIDE


def share_outside(hand: Hand, frame_size: tuple[int, int]) -> float:
    """Share of the joints that lie outside a frame of (h, w)."""
    height, width = frame_size
    outside = (hand.points < 0) | (hand.points > (width - 1, height - 1))
    return float(outside.any(axis=1).mean())


def hands_in_face(hands: Sequence[Hand], placement: Placement) -> Covered:
    """Mask of the hands on the square face: the hull of the joints, dilated to the skin."""
    matrix = placement.square_matrix(SIDE)
    covered = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for hand in hands:
        hull = cv2.convexHull(transform(matrix, hand.points).astype(np.float32))
        grown = max(FLESH * hand.size * mean_scale(matrix), 1.0)
        outline = hull.round().astype(np.int32)
        cv2.fillConvexPoly(covered, outline, 1)
        cv2.polylines(covered, [outline], True, 1, thickness=max(round(2 * grown), 1))
    return covered.astype(np.float32)


class SegmenterMasker:
    """A user's network as an ONNX file: square face => share of every pixel that is covered.

    Input 1 x 3 x s x s, RGB in 0 to 1; output 1 x 1 x s x s.
    """

    every = 1

    def __init__(self, path: Path | str, *, size: int = 256) -> None:
        self.path, self.size = Path(path), size
        if not self.path.is_file():
            raise FileNotFoundError(f"faces.segmenter={path} is not a file: check the path")
        try:
            self.network = cv2.dnn.readNetFromONNX(str(self.path))
            self.covered(np.zeros((size, size, 3), dtype=np.uint8))
        except cv2.error as error:
            raise ValueError(
                f"the segmenter {path} is no network that OpenCV reads as 1 x 3 x {size} x "
                f"{size} => 1 x 1 x {size} x {size}: {error.err or error}"
            ) from error

    @cached_property
    def cache_key(self) -> str:
        return f"segmenter 1 {self.size} {_digest(self.path)}"

    def __reduce__(self) -> tuple:
        return SegmenterMasker, (self.path,)

    def __call__(
        self, frame: Frame, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        size = (self.size, self.size)
        face = warp(frame, placement.square_matrix(self.size), size, border_value=127)
        covered = cv2.resize(self.covered(face), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return Occluder(covered) if (covered > 0.5).any() else None

    def covered(self, face: UInt8[np.ndarray, "s s 3"]) -> Float[np.ndarray, "s s"]:
        self.network.setInput(cv2.dnn.blobFromImage(face, 1 / 255))
        given = self.network.forward()
        if given.size != self.size**2:
            raise ValueError(
                f"the segmenter {self.path} gives {given.shape} of a face of {self.size} pixels, "
                f"not 1 x 1 x {self.size} x {self.size}"
            )
        return given.reshape(self.size, self.size).astype(np.float32).clip(0, 1)


def default_masker(
    *,
    cache_dir: Path | str | None = None,
    segmenter: Path | str | None = None,
    otherwise: str = NOT_THERE,
) -> OcclusionMasker | None:
    """The user's segmenter, else hand detection.

    None, with one warning, which says what happens `otherwise`, if the hand networks are
    unavailable.
    """
    if segmenter is not None:
        return SegmenterMasker(segmenter)
    try:
        palm, hand = (model_path(name, HANDS, cache_dir) for name in HANDS.checksums)
    except NotFetched as error:
        logger.warning("%s; until then %s", error, otherwise)
        return None
    return HandMasker(palm, hand)


def steadied(
    seen: Mapping[int, Covered], number: int, *, resolution: int
) -> Float[np.ndarray, "r r"] | None:
    """The mask of the face in frame `number`, from the masks by frame; None without occlusion.

    It includes at least the frame's own mask. Gaps between two detections are filled by the union
    of both; masks fade in and out over two frames.
    """
    own = seen.get(number)
    if own is None:
        own = _held(seen, number)
    around = [seen.get(number + step) for step in (-2, -1, 1, 2)]
    shares = [*([] if own is None else [own])]
    for weight, covered in zip((1 / 3, 2 / 3, 2 / 3, 1 / 3), around, strict=True):
        shares += [] if covered is None else [np.float32(weight) * covered]
    if not shares:
        return None
    return widened(np.max(shares, axis=0), resolution)


def _held(seen: Mapping[int, Covered], number: int) -> Covered | None:
    steps = range(1, HELD + 1)
    before = next((number - step for step in steps if number - step in seen), None)
    after = next((number + step for step in steps if number + step in seen), None)
    if before is None or after is None or after - before > HELD + 1:
        return None
    return np.maximum(seen[before], seen[after])


def widened(covered: Covered, resolution: int) -> Float[np.ndarray, "r r"]:
    """Adds a soft edge around the covered region, which stays fully covered."""
    large = cv2.resize(covered, (resolution, resolution), interpolation=cv2.INTER_LINEAR)
    edge = max(resolution // 64, 1)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * edge + 1, 4 * edge + 1))
    grown = cv2.dilate(large, ellipse)
    return np.maximum(cv2.GaussianBlur(grown, (0, 0), edge), large).clip(0, 1)


def _digest(*paths: Path) -> str:
    together = hashlib.blake2b(digest_size=16)
    for path in paths:
        together.update(path.read_bytes())
    return together.hexdigest()
