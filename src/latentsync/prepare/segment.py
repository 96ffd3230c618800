"""Recordings => their shots, as streams."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import ClassVar

from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.faces.tracking.shots import shots_of
from latentsync.media.audio import SAMPLE_RATE
from latentsync.prepare.stage import Dropped, Resampled, Segment, UnreadableError
from latentsync.prepare.stored_sound import part_of_sound


@dataclass(kw_only=True)
class Cut:
    """Cuts a recording into its shots, which are passed on while they are read.

    A shot ends where the picture changes `cut_ratio` times as much as motion does (see
    `ShotDetector`), which is known three frames later: the recording is read once, and no other
    frame is held. None takes it for one shot.
    """

    name: ClassVar[str] = "segment"
    takes: ClassVar[type] = Resampled
    makes: ClassVar[type] = Segment

    fps: float
    min_seconds: float
    cut_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.cut_ratio is not None and self.cut_ratio <= 0:
            raise ValueError(
                f"cut_ratio={self.cut_ratio:g} must be positive; null does not look for cuts"
            )
        self.min_frames = ceil(self.min_seconds * self.fps)

    def run(self, resampled: Resampled) -> Iterator[Segment | Dropped]:
        if resampled.num_frames < self.min_frames:
            reason = f"{resampled.num_frames} frames with sound, {self.min_frames} are needed"
            yield self._dropped(resampled, reason, 0, resampled.num_frames)
            return
        frames, start = UntilBroken(islice(resampled.frames(), resampled.num_frames)), 0
        for index, shot in enumerate(self._shots(frames)):
            counted = Counted(shot)
            yield self._segment(resampled, index, start, counted)
            for _ in counted:  # the next shot starts after unread frames
                pass
            start += counted.num_frames
        if frames.error is not None:
            raise frames.error
        if start < resampled.num_frames:
            reason = "the picture ends before the time that the file's header says"
            yield self._dropped(resampled, reason, start, resampled.num_frames)

    def _shots(self, frames: Iterator[AnyFrame]) -> Iterator[Iterator[AnyFrame]]:
        return iter([frames]) if self.cut_ratio is None else shots_of(frames, self.cut_ratio)

    def _segment(
        self, resampled: Resampled, index: int, start: int, frames: Iterator[AnyFrame]
    ) -> Segment:
        sound = resampled.waveform
        sound = part_of_sound(sound, sample_of(start, self.fps), len(sound))
        begin = resampled.frames_from

        def again() -> Iterator[AnyFrame]:
            assert begin is not None
            return begin(start)

        at = resampled.start_frame + start
        read_again = again if begin else None
        own = resampled.own_sound
        return Segment(resampled.source, index, at, frames, sound, read_again, own)

    def _dropped(self, resampled: Resampled, reason: str, start: int, end: int) -> Dropped:
        start, end = resampled.start_frame + start, resampled.start_frame + end
        return Dropped.part(resampled.source, self.name, reason, start=start, end=end, fps=self.fps)


class UntilBroken(Iterator[AnyFrame]):
    """Frames up to where the file breaks off, and the `error` that it breaks off with."""

    def __init__(self, frames: Iterator[AnyFrame]) -> None:
        self.frames = frames
        self.error: UnreadableError | None = None

    def __next__(self) -> AnyFrame:
        try:
            return next(self.frames)
        except UnreadableError as error:
            self.error = error
            raise StopIteration from error


class Counted(Iterator[AnyFrame]):
    """Frames, and the number of those that were taken."""

    def __init__(self, frames: Iterator[AnyFrame]) -> None:
        self.frames = frames
        self.num_frames = 0

    def __next__(self) -> AnyFrame:
        frame = next(self.frames)
        self.num_frames += 1
        return frame


def sample_of(frame: int, fps: float) -> int:
    """The first audio sample of a frame."""
    return round(frame * SAMPLE_RATE / fps)
