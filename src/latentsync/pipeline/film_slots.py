"""A surveyed video on a grid of 25 slots a second of its own clock, as judges of speech look at it.

Slot k is what is on screen at (k + 1/2) / 25 seconds, and heard from k / 25 to (k + 1) / 25.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentsync.faces.tracking.survey import Survey, Track
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameTimes

SLOTS_PER_SECOND = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_SLOT = SAMPLE_RATE // SLOTS_PER_SECOND

# Pictures of rising numbers of stored frames.
ReadPictures = Callable[[Sequence[int]], Iterator[Picture]]


@dataclass(frozen=True, slots=True)
class FaceSlots:
    """A track from slot `first` on: boxes without gaps, openings NaN where nobody knows them."""

    person: int
    first: int
    boxes: Float[np.ndarray, "n 4"]
    openings: Float[np.ndarray, " n"]

    @property
    def end(self) -> int:
        return self.first + len(self.boxes)


@dataclass(frozen=True, slots=True)
class FilmSlots:
    """`numbers` are the stored frames that the slots show; `waveform` is the video's own sound, of
    16 kHz in [-1, 1]; `cuts` marks the first slot of every shot."""

    numbers: Int[np.ndarray, " n"]
    cuts: Bool[np.ndarray, " n"]
    faces: list[FaceSlots]
    waveform: Float[Tensor, " t"]
    read: ReadPictures

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(
        cls,
        survey: Survey,
        times: FrameTimes,
        waveform: Float[Tensor, " t"],
        read: ReadPictures,
    ) -> "FilmSlots":
        num_slots = max(1, round(times.seconds * SLOTS_PER_SECOND))
        middles = (np.arange(num_slots) + 0.5) / SLOTS_PER_SECOND
        starts = times.starts * float(times.time_base)
        numbers = (np.searchsorted(starts, middles, side="right") - 1).clip(0)
        firsts = np.array([shot.first for shot in survey.shots])
        shots = np.searchsorted(firsts, numbers, side="right")
        cuts = np.diff(shots, prepend=shots[:1] - 1) != 0
        faces = [_on_slots(track, numbers) for track in survey.tracks]
        return cls(numbers, cuts, [face for face in faces if face is not None], waveform, read)


def _on_slots(track: Track, numbers: Int[np.ndarray, " n"]) -> FaceSlots | None:
    """The track's slots; None if none of them shows it."""
    first, end = np.searchsorted(numbers, [track.first, track.end]).tolist()
    if first == end:
        return None
    seen = np.flatnonzero(np.isfinite(track.boxes[:, 0]))
    placements = numbers[first:end] - track.first
    boxes = [np.interp(placements, seen, side[seen]) for side in track.boxes.T]
    return FaceSlots(
        track.person, first, np.stack(boxes, axis=1), track.openings[placements].astype(float)
    )
