"""LSE of a video file, pre-processed as by its authors: face tracks, crops of 224 px, 25 fps.

What differs from their programs: crops are not encoded a second and third time before they are
measured, and only the largest face of each shot is followed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.faces import Face, FaceDetector, track
from latentsync.faces.detectors.base import overlap
from latentsync.media.audio import read_waveform
from latentsync.media.video import read_frames
from latentsync.metrics.lse import MAX_SHIFT, shift_distances
from latentsync.metrics.syncnet_v2 import (
    FPS,
    SAMPLES_PER_FRAME,
    FaceTrack,
    Frame,
    LseTrack,
    NoTrack,
    cropped,
    embed_track,
)
from latentsync.models.syncnet_v2 import SyncNetV2

# A face track: its boxes overlap from frame to frame, or over a gap that is interpolated.
SAME_FACE, MAX_GAP, MIN_TRACK, MIN_SIZE = 0.5, 25, 50, 100


@dataclass(frozen=True, slots=True)
class LseScorer:
    """SyncNet v2 and the detector whose boxes are cropped; `faces` names it in the output."""

    net: SyncNetV2
    detector: FaceDetector
    faces: str

    def tracks(self, path: Path, *, seconds: float, with_backwards: bool = False) -> list[LseTrack]:
        """The embeddings of every face track of a video, and, at the cost of as much again, of its
        pictures backwards.

        NoTrack if it has none that the authors would have measured.
        """
        frames = read_frames(path, fps=FPS, num_frames=round(seconds * FPS))
        found = face_tracks(track(frames, self.detector))
        usable = [each for each in found if long_and_large(each)]
        if not usable:
            raise NoTrack(
                f"LSE is defined for a face of more than {MIN_SIZE} px in {MIN_TRACK} frames or "
                f"more, {path} has {_described(found)}"
            )
        sound = read_waveform(path)
        numbered = enumerate(read_frames(path, fps=FPS))
        embedded = []
        for each in usable:
            begin, end = each.first, each.first + len(each.boxes)
            crops = cropped(islice(_from(begin, numbered), end - begin), each)
            own_sound = sound[begin * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
            count = len(each.boxes)
            embedded.append(
                embed_track(self.net, crops, count, own_sound, with_backwards=with_backwards)
            )
        return embedded


def wide_curves(
    pairs: Iterable[tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]],
) -> Float[Tensor, "t 61"]:
    """Mean distance of pictures and sound at each shift, a row per pair, over what both last.

    Twice as many shifts as LSE looks at, so that no shifted sound needs a second look.
    """
    rows = []
    for vision, sound in pairs:
        length = min(len(vision), len(sound))
        distances = shift_distances(vision[:length], sound[:length], max_shift=2 * MAX_SHIFT)
        rows.append(distances.mean(dim=1))
    return torch.stack(rows)


def _from(first: int, numbered: Iterable[tuple[int, Frame]]) -> Iterator[Frame]:
    return (frame for index, frame in numbered if index >= first)


def long_and_large(face_track: FaceTrack) -> bool:
    """Whether the authors would have measured it."""
    return len(face_track.boxes) >= MIN_TRACK and face_track.size > MIN_SIZE


def _described(tracks: list[FaceTrack]) -> str:
    longest = max(tracks, key=lambda each: len(each.boxes), default=None)
    if longest is None:
        return "none"
    return f"one of {longest.size:.0f} px in {len(longest.boxes)} frames at most"


def face_tracks(faces: Iterable[Face | None]) -> list[FaceTrack]:
    """Runs of overlapping boxes; frames without a face are interpolated."""
    tracks: list[tuple[list[int], list[np.ndarray]]] = []
    for index, face in enumerate(faces):
        if face is None:
            continue
        if tracks:
            where, boxes = tracks[-1]
            near = index - where[-1] <= MAX_GAP
            if near and overlap(boxes[-1], face.box[None])[0] > SAME_FACE:
                where.append(index)
                boxes.append(face.box)
                continue
        tracks.append(([index], [face.box]))
    return [_without_gaps(where, np.stack(boxes)) for where, boxes in tracks]


def _without_gaps(where: list[int], boxes: Float[np.ndarray, "n 4"]) -> FaceTrack:
    every = np.arange(where[0], where[-1] + 1)
    return FaceTrack(where[0], np.stack([np.interp(every, where, row) for row in boxes.T], axis=1))
