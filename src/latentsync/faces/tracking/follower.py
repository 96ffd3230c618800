"""Tracks all faces of a shot: periodic detection, tracking in between."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from latentsync.faces.detectors.base import (
    Face,
    FaceDetector,
    IdentityEmbedder,
    midway,
    overlap,
)
from latentsync.faces.tracking.lazy_frame import AnyFrame, rgb_of
from latentsync.faces.tracking.tracklet import PointsOf, Tracklet

SEARCH_EVERY = 3  # detection interval while there is no face or one was just lost
SLOWER = 4  # the interval grows to at most this multiple of `every` while no new face is found
SAME_FACE = 0.5  # overlap above which two tracks follow one face
SAME_PLACE = 0.2  # overlap above which a new face is one that was just lost
MAX_GROWTH = 1.5  # maximum size change of a face found again after some frames
NEAR = (
    0.1  # steps of faces over two frames, in sizes, up to which the frame between does not matter
)
CROPS_AT_HAND = 16  # tracklets whose crops wait for their embedding


class Follower:
    """Call it with the frames of one shot, then `finish` it; `tracklets` are the faces seen so far.

    Buffers up to two frames without detection, in which a newly found face is tracked backwards.
    While all faces are calm, every other frame waits for the next: if they still are, the faces in
    it are interpolated.
    """

    def __init__(
        self,
        detector: FaceDetector,
        points_of: PointsOf,
        embedder: IdentityEmbedder | None,
        *,
        every: int,
    ) -> None:
        self.detector = detector
        self.new_tracklet = lambda: Tracklet(detector, points_of, embedder)
        self.every = every
        self.tracklets: list[Tracklet] = []
        self.here: list[Tracklet] = []
        self.next_look = self.wait = 0
        self.is_calm = False
        self.waiting: tuple[int, AnyFrame] | None = None
        self.unseen: deque[tuple[int, AnyFrame]] = deque(maxlen=SEARCH_EVERY - 1)

    def __call__(self, number: int, frame: AnyFrame) -> None:
        if self.is_calm and self.waiting is None and number < self.next_look:
            self.waiting = number, frame
            return
        lost = self.follow(number, frame)
        if lost or number >= self.next_look:
            self.look(number, frame)
        elif self.is_searching(number):
            self.unseen.append((number, frame))

    def finish(self) -> None:
        """Track the current faces into the last frame, if it still waits."""
        if self.waiting is not None:
            number, frame = self.waiting
            self.waiting = None
            self.move_on(number, frame, self.refined(frame))

    def follow(self, number: int, frame: AnyFrame) -> bool:
        """Track all current faces; returns whether any was lost."""
        before = [tracklet.face for tracklet in self.here if tracklet.face]
        after = self.refined(frame)
        is_calm = bool(before) and all(
            new is not None and self.detector.is_calm(old, new)
            for old, new in zip(before, after, strict=True)
        )
        num_before = len(self.here)
        if self.waiting is not None:
            number_before, frame_before = self.waiting
            self.waiting = None
            between: Sequence[Face | None]
            if is_calm:
                between = [
                    midway(old, new)
                    for old, new in zip(before, after, strict=True)
                    if new is not None
                ]
            else:
                between = self.refined(frame_before)
            self.move_on(number_before, frame_before, between)
            if not is_calm and (None in between or not is_near(before, after)):
                after = self.refined(frame)
        self.move_on(number, frame, after)
        self.is_calm = is_calm and not self.is_searching(number)
        return len(self.here) < num_before

    def refined(self, frame: AnyFrame) -> list[Face | None]:
        """All current faces in another frame; of two that coincide one is kept."""
        before = [tracklet.face for tracklet in self.here if tracklet.face]
        return distinct(before, [self.detector.refine(rgb_of(frame), face) for face in before])

    def move_on(self, number: int, frame: AnyFrame, faces: Sequence[Face | None]) -> None:
        for tracklet, face in zip(self.here, faces, strict=True):
            if face is not None:
                tracklet.add(number, face, frame)
        self.here = [tracklet for tracklet in self.here if tracklet.last == number]

    def look(self, number: int, frame: AnyFrame) -> None:
        """Detect new faces, and schedule the next detection."""
        known = [tracklet.face for tracklet in self.here if tracklet.face]
        found = others(self.detector, rgb_of(frame), known)
        for face in found:
            tracklet = self.missing_at(face, number) or self.new_tracklet()
            back = self.trace_back(face, tracklet)
            for earlier, face_before, frame_before in back:
                tracklet.add(earlier, face_before, frame_before)
            if tracklet not in self.tracklets:
                self.tracklets.append(tracklet)
            tracklet.add(number, face, frame)
            self.here.append(tracklet)
        self.unseen.clear()
        if found and len(self.tracklets) > CROPS_AT_HAND:
            for tracklet in self.tracklets:
                tracklet.identify()
        if self.is_searching(number):
            self.wait = SEARCH_EVERY
        elif found or self.wait < self.every:
            self.wait = self.every
        else:
            self.wait = min(2 * self.wait, SLOWER * self.every)
        self.next_look = number + self.wait

    def is_searching(self, number: int) -> bool:
        """Whether there is no face, or one was lost a moment ago."""
        return not self.here or any(
            0 < number - tracklet.last < self.every for tracklet in self.tracklets
        )

    def missing_at(self, face: Face, number: int) -> Tracklet | None:
        """The tracklet lost a moment ago at the position of this face."""
        missing = [
            tracklet for tracklet in self.tracklets if 0 < number - tracklet.last < self.every
        ]
        if not missing:
            return None
        last = np.array([tracklet.face.box for tracklet in missing if tracklet.face])
        shared = overlap(face.box, last)
        growth = np.ptp(last.reshape(-1, 2, 2), axis=1).max(axis=1) / np.ptp(
            face.box.reshape(2, 2), axis=0
        ).max(initial=1e-9)
        shared[(growth > MAX_GROWTH) | (growth < 1 / MAX_GROWTH)] = 0
        return missing[int(shared.argmax())] if shared.max() > SAME_PLACE else None

    def trace_back(self, face: Face, tracklet: Tracklet) -> list[tuple[int, Face, AnyFrame]]:
        """The face in the buffered frames, in order."""
        back = []
        known: Face | None = face
        for number, frame in reversed(self.unseen):
            if known is not None and number > tracklet.last:
                known = self.detector.refine(rgb_of(frame), known)
            else:
                known = None
            if known is None:
                break
            back.append((number, known, frame))
        return back[::-1]


def others(
    detector: FaceDetector, frame: UInt8[np.ndarray, "h w 3"], known: Sequence[Face]
) -> list[Face]:
    """The other faces of a frame, each once."""
    found = detector.others(frame, known) if known else detector(frame)
    boxes = np.array([face.box for face in known]).reshape(-1, 4)
    faces = []
    for face in found:
        if not (overlap(face.box, boxes) > SAME_FACE).any():
            faces.append(face)
            boxes = np.concatenate([boxes, face.box[None]])
    return faces


def distinct(before: Sequence[Face], after: Sequence[Face | None]) -> list[Face | None]:
    """`after` with one face per position: of two that coincide the one that moved less is kept."""
    steps = [
        np.inf if new is None else _step(old, new) for old, new in zip(before, after, strict=True)
    ]
    kept: list[Face | None] = [None] * len(after)
    boxes = np.zeros((0, 4))
    for index in np.argsort(steps, kind="stable").tolist():
        face = after[index]
        if face is not None and not (overlap(face.box, boxes) > SAME_FACE).any():
            kept[index] = face
            boxes = np.concatenate([boxes, face.box[None]])
    return kept


def is_near(before: Sequence[Face], after: Sequence[Face | None]) -> bool:
    """Whether all faces are still there and moved so little that none was mistaken for another."""
    return all(
        new is not None and _step(old, new) < NEAR for old, new in zip(before, after, strict=True)
    )


def _step(old: Face, new: Face) -> float:
    """Movement and growth of a box, relative to its size."""
    size = max(float(np.sqrt(max(old.area, 1e-9))), 1e-9)
    return float(np.abs(new.box - old.box).max() / size)
