"""Frames of a shot => the aligned face of each, what hides it, and what is measured of it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt

import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.align import Aligner, align, aligned_box
from latentsync.faces.detectors.base import (
    FIVE_POINTS,
    Face,
    FaceDetector,
    five_points,
    largest,
    overlap,
)
from latentsync.faces.mask import load_mask
from latentsync.faces.occlusion import SIDE, OcclusionMasker
from latentsync.faces.placement import Placement
from latentsync.faces.tracking.identity import recognition_crop
from latentsync.faces.tracking.lazy_frame import AnyFrame, part_of, rgb_of
from latentsync.faces.tracking.occlusion import (
    MIN_MOUTH_SHARE,
    MIN_SHARE,
    MOUTH,
    OcclusionTracker,
)
from latentsync.faces.tracking.single import Tracker
from latentsync.faces.tracking.turned import TurnGate
from latentsync.prepare.stage import Frame, Look

# A look for hands takes as long as all else of ten frames, so every third frame stands for three.
# While there is no hand, every fifth of those is looked at: what is there for 15 frames, 30 % of a
# clip of 2 s, is seen.
OCCLUSION_STEP, OCCLUSION_EVERY = 3, 5
LOOK_EVERY = 10  # frames between looks of one face
MIN_SPREAD = 1.0  # pixels over which eyes and mouth must spread for a look

# Other faces are looked for twice in the shortest clip, and begin at one of these frames.
OTHERS_EVERY, SEARCH_EVERY = 25, 5
SAME_FACE = 0.1  # overlap above which two faces are one, as of detections and known meshes

FaceFrame = UInt8[np.ndarray, "r r 3"]
Box = Float[np.ndarray, "4"]
Places = list[Box | None]  # of a face, in every frame


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """A cropped face, the head's yaw in degrees and the mouth's opening (NaN if unknown), and the
    side of the square in the recording, in pixels (the geometric mean of both, as the published
    crop is no square); every tenth has what recognition networks see of it."""

    frame: FaceFrame
    turn: float
    opening: float
    side: float
    look: Look | None = None


def aligned_faces(
    frames: Iterable[AnyFrame],
    detector: FaceDetector,
    aligner: Aligner,
    resolution: int,
    *,
    min_overlap: float = 0.0,
    tracker: OcclusionTracker | None = None,
    follow: Callable[[Frame], Face | None] | None = None,
) -> Iterator[AlignedFace | None]:
    """The face of every frame of a shot, or None; None also where another face was picked.

    `tracker` looks for what hides the faces; `follow` gives the face of each frame, by default the
    largest, until it is lost. Frames are only buffered for its and the aligner's
    look-ahead.
    """
    waiting: deque[AnyFrame] = deque()
    measured: deque[tuple[float, float, Look | None]] = deque()

    def remembered() -> Iterator[Frame]:
        for frame in frames:
            waiting.append(frame)
            yield rgb_of(frame)

    def points() -> Iterator[np.ndarray | None]:
        found = map(follow or Tracker(detector), remembered())
        for number, face in enumerate(without_jumps(found, min_overlap)):
            look = look_of(face, rgb_of(waiting[-1])) if number % LOOK_EVERY == 0 else None
            measured.append((turn_of(face, detector), opening_of(face, detector), look))
            yield None if face is None else aligner.points_of(face)

    for number, placement in enumerate(aligner.placements(points())):
        frame, (turn, opening, look) = waiting.popleft(), measured.popleft()
        if placement is None:
            yield None
        else:
            if tracker is not None and number % OCCLUSION_STEP == 0:
                tracker(number // OCCLUSION_STEP, partial(rgb_of, frame), placement)
            enlarged = sqrt(abs(np.linalg.det(placement.square_matrix(resolution)[:, :2])))
            face_frame = face_in(frame, placement, resolution)
            yield AlignedFace(face_frame, turn, opening, resolution / enlarged, look)


class OneOfSeveral:
    """Follows the largest face of a shot that is at none of the places `taken`; notes its places,
    and whether there are others besides. Lost, it is found again at the same place only: who is
    elsewhere then may be somebody else, and is followed from when they came."""

    def __init__(self, detector: FaceDetector, taken: Sequence[Places] = ()) -> None:
        self.detector, self.taken = detector, taken
        self.places: Places = []
        self.has_others = False
        self.face: Face | None = None
        self.last: Box | None = None

    def __call__(self, frame: Frame) -> Face | None:
        number = len(self.places)
        known = [places[number] for places in self.taken if number < len(places)]
        taken = [box for box in known if box is not None]
        face = self.detector.refine(frame, self.face) if self.face else None
        if face is not None and is_at(face, taken):
            face = None
        if face is None and (not self.taken or number % SEARCH_EVERY == 0):
            face = self._found(frame, taken)
        if face is not None and number % OTHERS_EVERY == 0 and not self.has_others:
            here = [*taken, face.box]
            others = self.detector.others(frame, [face])
            self.has_others = any(not is_at(each, here) for each in others)
        self.face = face
        self.last = self.last if face is None else face.box
        self.places.append(None if face is None else face.box)
        return face if face is not None and face.can_be_aligned else None

    def _found(self, frame: Frame, taken: Sequence[Box]) -> Face | None:
        here = [face for face in self.detector(frame) if not is_at(face, taken)]
        if self.last is None:
            return largest(here)
        same = [face for face in here if is_at(face, [self.last])]
        self.has_others |= len(same) < len(here)
        return largest(same)


def is_at(face: Face, places: Sequence[Box]) -> bool:
    """Whether a face is one of those at these places."""
    return bool(places) and bool((overlap(face.box, np.stack(places)) > SAME_FACE).any())


def face_in(frame: AnyFrame, placement: Placement, resolution: int) -> FaceFrame:
    """The aligned face, of which only the part of the frame that holds it is converted."""
    x0, y0, x1, y1 = box = aligned_box(placement, resolution, (frame.shape[0], frame.shape[1]))
    if x1 <= x0 or y1 <= y0:
        return align(rgb_of(frame), placement, resolution)
    return align(part_of(frame, box), placement.inside(x0, y0), resolution)


def hand_tracker(masker: OcclusionMasker) -> OcclusionTracker:
    """Looks for what hides the faces of a shot, in every third frame."""
    painted = load_mask("mask", SIDE) < 0.5
    return OcclusionTracker(masker, painted, every=OCCLUSION_EVERY)


def hidden_in(
    tracker: OcclusionTracker, frames: range, *, step: int = 1
) -> list[tuple[bool, bool]]:
    """Whether something lies before the painted part, and before the mouth, for these frames of a
    shot, each of the tracker's standing for `step`; as far as it has looked."""
    doubtful = tracker.doubtful()
    hidden: dict[int, tuple[bool, bool]] = {}
    for number in range(frames.start // step, -(-frames.stop // step)):
        if number in tracker.seen and number not in doubtful:
            mouth = float((tracker.seen[number][MOUTH] > 0.5).mean())
            hidden[number] = tracker.seen.shares[number] > MIN_SHARE, mouth > MIN_MOUTH_SHARE
    return [hidden.get(frame // step, (False, False)) for frame in frames]


def facing(
    faces: Iterable[AlignedFace | None], max_yaw: float | None
) -> Iterator[AlignedFace | None]:
    """The faces, but None where a head is turned by more than `max_yaw` degrees; some frames
    behind its input."""
    if max_yaw is None:
        yield from faces
        return
    gate, waiting = TurnGate(max_yaw), deque[AlignedFace | None]()
    for face in faces:
        waiting.append(face)
        for away in gate(np.nan if face is None else face.turn):
            yield unless(away, waiting.popleft())
        del face  # it must not be kept alive
    for away in gate.finish():
        yield unless(away, waiting.popleft())


def unless(away: bool, face: AlignedFace | None) -> AlignedFace | None:
    return None if away else face


def without_jumps(faces: Iterable[Face | None], min_overlap: float) -> Iterator[Face | None]:
    """The faces, but None for the first one after a jump to another place."""
    before: Face | None = None
    for face in faces:
        jumped = before and face and overlap(before.box, face.box[None])[0] < min_overlap
        yield None if jumped else face
        before = face


def look_of(face: Face | None, frame: Frame) -> Look | None:
    """A face as recognition networks take it; None if its points do not show eyes and mouth, or
    lie on one another."""
    if face is None or face.scheme not in FIVE_POINTS:
        return None
    if np.ptp(five_points(face), axis=0).max() < MIN_SPREAD:
        return None
    return recognition_crop(frame, face)


def turn_of(face: Face | None, detector: FaceDetector) -> float:
    """Yaw of a head, -90 to 90 degrees; NaN without a face, or if unknown."""
    turn = None if face is None else detector.yaw(face)
    return float("nan") if turn is None else turn


def opening_of(face: Face | None, detector: FaceDetector) -> float:
    """How far a mouth is open, relative to the distance of the eyes; NaN if unknown."""
    opening = None if face is None else detector.opening(face)
    return float("nan") if opening is None else opening
