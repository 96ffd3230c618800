"""One face while it is tracked: its points, boxes, and embeddings of its best frames."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
from jaxtyping import Float, UInt8

from latentsync.faces.detectors.base import (
    FIVE_POINTS,
    CropEmbedder,
    Face,
    FaceDetector,
    IdentityEmbedder,
    five_points,
)
from latentsync.faces.tracking.clothes import Colours, torso_colours
from latentsync.faces.tracking.identity import Appearance, clothes_weight, nearest_similarity
from latentsync.faces.tracking.lazy_frame import AnyFrame, rgb_of
from latentsync.faces.warp import transform

# Identity is looked at in frames spread over the track, first this often, and at once for a face
# seen this much better. When there are as many samples as may be, the clearer one of every two
# neighbours stays, and further ones are twice as far apart.
SAMPLE_EVERY, MAX_SAMPLES, BETTER = 4, 8, 1.4
LARGE_ENOUGH = 64.0  # pixels; larger faces are not identified any better
WITHOUT_LANDMARKS = 0.3  # weight of an embedding without landmarks
LONGEST_GAP = 4  # frames without landmarks bridged per end with landmarks
NAN = float("nan")

PointsOf = Callable[[Face], Float[np.ndarray, "_ 2"]]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a face looks like in one frame, how clearly it is seen, and what is worn below it.

    `look` is an embedding, or a crop that is not embedded yet.
    """

    look: Float[np.ndarray, " d"] | UInt8[np.ndarray, "side side 3"]
    clarity: float
    clothes: Colours | None


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
        self.samples: list[Sample] = []
        self.sample_every, self.next_sample = SAMPLE_EVERY, 0

    def add(self, number: int, face: Face, frame: AnyFrame) -> None:
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
        if self.embedder is not None and self.is_worth_sampling(face):
            self.sample(self.embedder, rgb_of(frame), face)
        self.last, self.face = number, face
        self.num_seen += 1

    def is_worth_sampling(self, face: Face) -> bool:
        best = max((sample.clarity for sample in self.samples), default=0.0)
        return self.num_seen >= self.next_sample or clarity(face, self.turns[-1]) > BETTER * best

    def sample(
        self, embedder: IdentityEmbedder, frame: UInt8[np.ndarray, "h w 3"], face: Face
    ) -> None:
        look = embedder.crop(frame, face) if embeds_crops(embedder) else embedder(frame, face)
        if look is None:
            return
        clothes = torso_colours(frame, face.box) if clothes_weight(embedder) else None
        self.samples.append(Sample(look, clarity(face, self.turns[-1]), clothes))
        self.next_sample = self.num_seen + self.sample_every
        if len(self.samples) == MAX_SAMPLES:
            pairs = zip(self.samples[::2], self.samples[1::2], strict=True)
            self.samples = [max(pair, key=lambda sample: sample.clarity) for pair in pairs]
            self.sample_every *= 2

    def identify(self) -> None:
        """Embed all crops so far, each some 40 kB."""
        if embeds_crops(self.embedder):
            embed = self.embedder.embed
            self.samples = [
                sample if sample.look.ndim == 1 else replace(sample, look=embed(sample.look))
                for sample in self.samples
            ]

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

    def share_with_landmarks(self) -> float:
        """Of the frames in which the face was seen, the share in which it could be aligned."""
        known = np.isfinite(_float32(self.points).reshape(-1, 2 * self.num_points)).all(axis=1)
        return float(known.sum()) / max(self.num_seen, 1)

    def appearance(self) -> Appearance:
        self.identify()
        boxes = _float32(self.boxes).reshape(-1, 4)
        embedding = mean_embedding(
            [sample.look for sample in self.samples], [sample.clarity for sample in self.samples]
        )
        worn = [sample.clothes for sample in self.samples if sample.clothes is not None]
        clothes = np.mean(worn, axis=0) if worn else None
        return Appearance(self.first, self.last + 1, boxes[0], boxes[-1], embedding, clothes)


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


def embeds_crops(embedder: IdentityEmbedder | None) -> TypeGuard[CropEmbedder]:
    """As isinstance, which reads `cache_key` on Python 3.11: the hash of a large file."""
    return hasattr(embedder, "crop") and hasattr(embedder, "embed")


def _five(face: Face) -> Float[np.ndarray, "5 2"]:
    if face.five is not None:
        return face.five
    return five_points(face) if face.scheme in FIVE_POINTS else np.full((5, 2), NAN)


def _known(value: float | None) -> float:
    return NAN if value is None else value


def _float32(values: array) -> Float[np.ndarray, " n"]:
    return np.array(values, dtype=np.float32)
