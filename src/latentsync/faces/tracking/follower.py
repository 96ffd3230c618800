"""Tracks all faces of a shot: periodic detection, tracking in between."""

from array import array
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import (
    FIVE_POINTS,
    Face,
    FaceDetector,
    IdentityEmbedder,
    five_points,
    midway,
    overlap,
)
from latentsync.faces.tracking.identity import Appearance, nearest_similarity
from latentsync.faces.warp import transform

SEARCH_EVERY = 3  # detection interval while there is no face or one was just lost
SLOWER = 4  # the interval grows to at most this multiple of `every` while no new face is found
SAME_FACE = 0.5  # overlap above which two tracks follow one face
SAME_PLACE = 0.2  # overlap above which a new face is one that was just lost
# Identity embeddings are computed ever less often, and at once for a face seen this much better.
FIRST_EMBEDDINGS, MAX_EMBEDDINGS, BETTER = 3, 8, 1.4
LARGE_ENOUGH = 64.0  # pixels; larger faces are not identified any better
WITHOUT_LANDMARKS = 0.3  # weight of an embedding without landmarks
LONGEST_GAP = 4  # frames without landmarks bridged per end with landmarks
MAX_GROWTH = 1.5  # maximum size change of a face found again after some frames
NAN = float("nan")

PointsOf = Callable[[Face], Float[np.ndarray, "_ 2"]]


class Tracklet:
    """The data of one face in consecutive frames: some 60 bytes per frame."""

    def __init__(
        self, detector: FaceDetector, points_of: PointsOf, embedder: IdentityEmbedder | None
    ) -> None:
        self.detector = detector
        self.points_of = points_of
        self.embedder = embedder
        self.first = self.last = -1
        self.num_seen, self.num_points = 0, 3
        self.face: Face | None = None
        self.points, self.boxes, self.mouths, self.turns = (array("f") for _ in range(4))
        self.fives = array("f")
        self.embeddings: list[Float[np.ndarray, " d"]] = []
        self.clarities: list[float] = []
        self.next_embedding = 0

    def add(self, number: int, face: Face, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append the face in a later frame; it was not seen in the frames skipped."""
        if not self.num_seen:
            self.first, self.last = number, number - 1
        points = self.aligned_points(face)
        missed = number - self.last - 1
        for values, new in (
            (self.points, points.ravel()),
            (self.boxes, face.box),
            (self.mouths, [_known(self.detector.opening(face))]),
            (self.turns, [_known(self.detector.yaw(face))]),
            (self.fives, _five(face).ravel()),
        ):
            values.extend([NAN] * (missed * len(new)))
            values.extend(np.asarray(new).tolist())
        if self.embedder is not None and self.is_worth_embedding(face):
            self.embed(self.embedder, frame, face)
        self.last, self.face = number, face
        self.num_seen += 1

    def is_worth_embedding(self, face: Face) -> bool:
        better = clarity(face, self.turns[-1]) > BETTER * max(self.clarities, default=0)
        return better or (
            self.num_seen >= self.next_embedding and len(self.embeddings) < MAX_EMBEDDINGS
        )

    def embed(
        self, embedder: IdentityEmbedder, frame: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> None:
        embedding = embedder(frame, face)
        if embedding is not None:
            if len(self.embeddings) == MAX_EMBEDDINGS:
                least = int(np.argmin(self.clarities))
                del self.embeddings[least], self.clarities[least]
            self.embeddings.append(embedding)
            self.clarities.append(clarity(face, self.turns[-1]))
            self.next_embedding = max(2 * self.num_seen, FIRST_EMBEDDINGS)

    def aligned_points(self, face: Face) -> Float[np.ndarray, "_ 2"]:
        """The points to store; NaN if the face cannot be aligned."""
        if not face.can_be_aligned:
            return np.full((self.num_points, 2), NAN)
        points = self.points_of(face)
        if self.num_points != len(points):  # the first face that can be aligned
            self.points = array("f", [NAN] * (2 * len(points) * len(self.mouths)))
            self.num_points = len(points)
        return points

    def arrays(self) -> dict[str, Float[np.ndarray, "n ..."]]:
        """points "n p 2", boxes "n 4", openings " n", yaws " n"; NaN if not seen."""
        length = self.last - self.first + 1
        points = _float32(self.points).reshape(length, self.num_points, 2)
        return {
            "points": bridged(points, _float32(self.fives).reshape(length, 5, 2)),
            "boxes": _float32(self.boxes).reshape(length, 4),
            "openings": _float32(self.mouths),
            "yaws": _float32(self.turns),
        }

    def appearance(self) -> Appearance:
        boxes = _float32(self.boxes).reshape(-1, 4)
        embedding = mean_embedding(self.embeddings, self.clarities)
        return Appearance(self.first, self.last + 1, boxes[0], boxes[-1], embedding)


def clarity(face: Face, yaw: float) -> float:
    """How well a face can be identified, 0 to 1: best frontal, large, with landmarks."""
    facing = 1.0 if np.isnan(yaw) else max(float(np.cos(np.radians(yaw))), 0.1)
    size = min(float(face.box[3] - face.box[1]) / LARGE_ENOUGH, 1.0)
    return facing * max(size, 0.1) * (1.0 if face.can_be_aligned else WITHOUT_LANDMARKS)


def mean_embedding(
    embeddings: Sequence[Float[np.ndarray, " d"]], clarities: Sequence[float]
) -> Float[np.ndarray, " d"] | None:
    """The mean embedding, weighted by squared clarity, at the mean length: unit if all are."""
    if not embeddings:
        return None
    mean = np.average(embeddings, axis=0, weights=np.square(clarities))
    length = np.mean([np.linalg.norm(embedding) for embedding in embeddings])
    return mean * (length / max(float(np.linalg.norm(mean)), 1e-12))


def bridged(
    points: Float[np.ndarray, "n p 2"], fives: Float[np.ndarray, "n 5 2"]
) -> Float[np.ndarray, "n p 2"]:
    """Fills short gaps in the points where eyes, nose and mouth are known.

    Uses the points of the frames around the gap, moved along with those five.
    """
    known = np.isfinite(points).all(axis=(1, 2))
    bridged = points.copy()
    ends = np.flatnonzero(np.diff(np.concatenate([[True], known, [True]]).astype(int)))
    for first, end in ends.reshape(-1, 2).tolist():
        beside = [at for at in (first - 1, end) if 0 <= at < len(known)]
        if end - first > LONGEST_GAP * len(beside) or not np.isfinite(fives[first:end]).all():
            continue
        if not np.isfinite(fives[beside]).all():
            continue
        for number in range(first, end):
            moved = [
                transform(nearest_similarity(fives[at], fives[number]), points[at]) for at in beside
            ]
            nearness = [1 / abs(number - at) for at in beside]
            bridged[number] = np.average(moved, axis=0, weights=nearness)
    return bridged


def _five(face: Face) -> Float[np.ndarray, "5 2"]:
    if face.five is not None:
        return face.five
    return five_points(face) if face.scheme in FIVE_POINTS else np.full((5, 2), NAN)


def _known(value: float | None) -> float:
    return NAN if value is None else value


def _float32(values: array) -> Float[np.ndarray, " n"]:
    return np.array(values, dtype=np.float32)


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
        self.waiting: tuple[int, UInt8[np.ndarray, "h w 3"]] | None = None
        self.unseen: deque[tuple[int, UInt8[np.ndarray, "h w 3"]]] = deque(maxlen=SEARCH_EVERY - 1)

    def __call__(self, number: int, frame: UInt8[np.ndarray, "h w 3"]) -> None:
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

    def follow(self, number: int, frame: UInt8[np.ndarray, "h w 3"]) -> bool:
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
            if is_calm:
                between = [
                    midway(old, new)
                    for old, new in zip(before, after, strict=True)
                    if new is not None
                ]
                self.move_on(number_before, frame_before, between)
            else:
                self.move_on(number_before, frame_before, self.refined(frame_before))
                after = self.refined(frame)
        self.move_on(number, frame, after)
        self.is_calm = is_calm and not self.is_searching(number)
        return len(self.here) < num_before

    def refined(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Face | None]:
        """All current faces in another frame; of two that coincide one is kept."""
        before = [tracklet.face for tracklet in self.here if tracklet.face]
        return distinct(before, [self.detector.refine(frame, face) for face in before])

    def move_on(
        self, number: int, frame: UInt8[np.ndarray, "h w 3"], faces: Sequence[Face | None]
    ) -> None:
        for tracklet, face in zip(self.here, faces, strict=True):
            if face is not None:
                tracklet.add(number, face, frame)
        self.here = [tracklet for tracklet in self.here if tracklet.last == number]

    def look(self, number: int, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Detect new faces, and schedule the next detection."""
        known = [tracklet.face for tracklet in self.here if tracklet.face]
        found = others(self.detector, frame, known)
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

    def trace_back(
        self, face: Face, tracklet: Tracklet
    ) -> list[tuple[int, Face, UInt8[np.ndarray, "h w 3"]]]:
        """The face in the buffered frames, in order."""
        back = []
        known: Face | None = face
        for number, frame in reversed(self.unseen):
            known = self.detector.refine(frame, known) if number > tracklet.last and known else None
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


def _step(old: Face, new: Face) -> float:
    """Movement and growth of a box, relative to its size."""
    size = max(float(np.sqrt(max(old.area, 1e-9))), 1e-9)
    return float(np.abs(new.box - old.box).max() / size)
