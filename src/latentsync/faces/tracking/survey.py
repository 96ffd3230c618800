"""One pass over a video: its shots, faces and persons, as small arrays."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from latentsync.faces.detectors.base import FaceDetector, IdentityEmbedder
from latentsync.faces.tracking.follower import Follower
from latentsync.faces.tracking.identity import ColorEmbedder, clothes_weight, number_people
from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.faces.tracking.opencv_threads import single_opencv_thread
from latentsync.faces.tracking.shots import shots_of
from latentsync.faces.tracking.tracklet import PointsOf, Tracklet
from latentsync.faces.tracking.turned import STEADY_FRAMES, turned_away
from latentsync.files import publish

FORMAT_VERSION = 1
ARRAYS = ("points", "boxes", "openings", "yaws")
# Tracks seen in fewer frames, and missing for most of their shot, are false detections.
FLASH = 3
# So are tracks that face the camera while landmarks fit in a smaller share of their frames: on real
# clips hair, crowds in the dark, blurred heads. None of them could be redrawn.
MIN_LANDMARKS, FACING_YAW = 0.1, 35.0


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames `first` to `end` (exclusive)."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Track:
    """One face through part of a shot, from frame `first` on; NaN where it was not seen.

    `points` are those the aligner needs (also NaN where the face is seen without landmarks),
    `boxes` x0, y0, x1, y1, both in pixels. `openings` is the gap between the inner lips divided by
    the distance of the eyes, `yaws` is in degrees, positive to the image's right; both are also NaN
    if the detector's points do not show them. `person` numbers people through the video: 0, 1, ...
    by first frame, larger faces first.
    """

    person: int
    first: int
    points: Float[np.ndarray, "n p 2"]
    boxes: Float[np.ndarray, "n 4"]
    openings: Float[np.ndarray, " n"]
    yaws: Float[np.ndarray, " n"]

    @property
    def end(self) -> int:
        return self.first + len(self.boxes)


@dataclass(frozen=True, slots=True)
class Survey:
    """Shots and tracks of a video. Every track is inside one shot; tracks are sorted by `first`."""

    num_frames: int
    shots: list[Shot]
    tracks: list[Track]

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        arrays = {
            f"{index}.{name}": np.ascontiguousarray(getattr(track, name))
            for index, track in enumerate(self.tracks)
            for name in ARRAYS
        }
        header = {
            "format_version": FORMAT_VERSION,
            "num_frames": self.num_frames,
            "shots": [[shot.first, shot.end] for shot in self.shots],
            "tracks": [[track.person, track.first] for track in self.tracks],
        }
        with publish(path) as partial:
            save_file(arrays, partial, metadata={"survey": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`; ValueError for any other file."""
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file: look at the video again")
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {}).get("survey", "{}"))
                found = header.get("format_version")
                if found != FORMAT_VERSION:
                    raise ValueError(
                        f"{path} holds a survey of version {found}, this program reads "
                        f"{FORMAT_VERSION}: remove it, and the video is looked at again"
                    )
                tracks = [
                    Track(person, first, *(file.get_tensor(f"{index}.{name}") for name in ARRAYS))
                    for index, (person, first) in enumerate(header["tracks"])
                ]
        except SafetensorError as error:
            raise ValueError(
                f"{path} is no survey, or damaged ({error}): remove it, and the video is looked at "
                "again"
            ) from error
        return cls(header["num_frames"], [Shot(*shot) for shot in header["shots"]], tracks)


def survey(
    frames: Iterable[AnyFrame],
    detector: FaceDetector,
    points_of: PointsOf,
    *,
    embedder: IdentityEmbedder | Literal["detector"] | None = "detector",
    every: int = 12,
) -> Survey:
    """Shots, faces and persons of a video's stored frames, at most six of which are in memory.

    Faces are detected at a shot's start, when one is lost, and every `every` frames, less often (up
    to four times) while that finds none; they are tracked in between. While there is no face, every
    third frame is searched. `points_of` gives the points of a face to store, as `Aligner.points_of`
    does. `embedder`: "detector" uses its `identity`, or colours; None matches persons across cuts
    by position.
    """
    if every < 1:
        raise ValueError(f"every={every}: faces are looked for every 1 frame or more")
    if embedder == "detector":
        embedder = detector.identity or ColorEmbedder()
    with single_opencv_thread():
        return _survey(frames, detector, points_of, embedder, every)


def _survey(
    frames: Iterable[AnyFrame],
    detector: FaceDetector,
    points_of: PointsOf,
    embedder: IdentityEmbedder | None,
    every: int,
) -> Survey:
    num_frames = 0
    shots: list[Shot] = []
    tracklets: list[Tracklet] = []
    for shot in shots_of(frames):
        first, follower = num_frames, Follower(detector, points_of, embedder, every=every)
        for frame in shot:
            follower(num_frames, frame)
            num_frames += 1
        follower.finish()
        shots.append(Shot(first, num_frames))
        latest = lasting(follower, first, num_frames)
        if len(tracklets) + len(latest) > 1:  # a face that stays alone is never embedded
            for tracklet in [*tracklets[:1], *latest]:
                tracklet.identify()
        tracklets += latest
    tracks = [
        Track(person, tracklet.first, **tracklet.arrays())
        for person, tracklet in zip(persons_of(tracklets, embedder), tracklets, strict=True)
    ]
    return Survey(num_frames, shots, sorted(tracks, key=lambda track: (track.first, track.person)))


def persons_of(tracklets: Sequence[Tracklet], embedder: IdentityEmbedder | None) -> list[int]:
    if len(tracklets) == 1:
        return [0]
    return number_people(
        [tracklet.appearance() for tracklet in tracklets],
        limit=embedder.limit if embedder is not None else 1.0,
        same_clothes=clothes_weight(embedder),
    )


def lasting(follower: Follower, first: int, end: int) -> list[Tracklet]:
    """The tracklets of a shot from `first` to `end`, without false detections."""
    return [
        tracklet
        for tracklet in follower.tracklets
        if (tracklet.num_seen >= FLASH or tracklet.num_seen * 2 > end - first)
        and (tracklet.share_with_landmarks() >= MIN_LANDMARKS or not faces_camera(tracklet))
    ]


def faces_camera(tracklet: Tracklet) -> bool:
    """Whether the head is known to face the camera in most frames, so that landmarks must fit."""
    turns = np.abs(np.array(tracklet.turns))
    known = turns[np.isfinite(turns)]
    return len(known) > 0 and float(np.median(known)) < FACING_YAW


def usable(
    track: Track, *, min_size: float, max_yaw: float
) -> tuple[Bool[np.ndarray, " n"], list[str]]:
    """For every frame of a track whether its face can be redrawn, and if not, why ("" if so).

    `min_size`: height of the face's box in pixels. `max_yaw`: degrees, 0 to 90; an unknown yaw is
    accepted.
    """
    sizes = steady(track.boxes[:, 3] - track.boxes[:, 1])
    turned = turned_away(track.yaws, max_yaw)
    seen = np.isfinite(track.boxes[:, 0])
    reasons = []
    aligned = np.isfinite(track.points).all(axis=(1, 2))
    for is_seen, has_landmarks, size, is_turned in zip(seen, aligned, sizes, turned, strict=True):
        if not is_seen:
            reasons.append("no face found")
        elif not has_landmarks:
            reasons.append("no landmarks found: the face is turned away, bowed or hidden")
        elif size < min_size:
            reasons.append(f"face smaller than faces.min_size={min_size:g} pixels")
        elif is_turned:
            reasons.append(f"head turned by more than faces.max_yaw={max_yaw:g} degrees")
        else:
            reasons.append("")
    return np.array([not reason for reason in reasons]), reasons


def steady(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Median over neighbouring frames, ignoring unknown values; NaN stays NaN."""
    known = np.isfinite(values)
    steadied = np.full(len(values), np.nan, dtype=np.float32)
    if known.any():
        padded = np.pad(values, STEADY_FRAMES // 2, constant_values=np.nan)
        steadied[known] = np.nanmedian(sliding_window_view(padded, STEADY_FRAMES)[known], axis=1)
    return steadied
