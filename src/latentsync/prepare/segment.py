"""Long recordings => segments of nearly equal length."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import ClassVar

from latentsync.media.audio import SAMPLE_RATE
from latentsync.prepare.stage import Dropped, Resampled, Segment


@dataclass(kw_only=True)
class Cut:
    """Cuts into the fewest equal segments of at most `max_seconds`.

    With 10 s they last 5-10 s, unless the recording is shorter; recordings below `min_seconds` are
    dropped.
    """

    name: ClassVar[str] = "segment"
    takes: ClassVar[type] = Resampled
    makes: ClassVar[type] = Segment

    fps: float
    min_seconds: float
    max_seconds: float

    def __post_init__(self) -> None:
        if self.max_seconds < 2 * self.min_seconds:
            raise ValueError(
                f"max_seconds={self.max_seconds:g} must be twice min_seconds={self.min_seconds:g} "
                "or more: a recording is cut into equal segments"
            )
        self.min_frames = ceil(self.min_seconds * self.fps)
        self.max_frames = int(self.max_seconds * self.fps)

    def run(self, resampled: Resampled) -> Iterator[Segment | Dropped]:
        if resampled.num_frames < self.min_frames:
            reason = f"{resampled.num_frames} frames with sound, {self.min_frames} are needed"
            yield Dropped(resampled.source.name, self.name, reason)
            return
        start = 0
        for index, length in enumerate(equal_lengths(resampled.num_frames, self.max_frames)):
            frames = islice(resampled.frames, length)
            yield Segment(
                source=resampled.source,
                index=index,
                start_frame=start,
                frames=frames,
                waveform=resampled.waveform[
                    sample_of(start, self.fps) : sample_of(start + length, self.fps)
                ],
            )
            start += length
            for _ in frames:  # the next segment starts after unread frames
                pass


def equal_lengths(total: int, maximum: int) -> list[int]:
    """The fewest lengths of at most `maximum` that add up to `total`; they differ by 1 at most."""
    count = ceil(total / maximum)
    return [total * (index + 1) // count - total * index // count for index in range(count)]


def sample_of(frame: int, fps: float) -> int:
    """The first audio sample of a frame."""
    return round(frame * SAMPLE_RATE / fps)
