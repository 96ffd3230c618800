"""A part of every recording, by share of its time: to hold the rest out."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.prepare.segment import sample_of
from latentsync.prepare.stage import Dropped, Resampled
from latentsync.prepare.stored_sound import part_of_sound


@dataclass(kw_only=True)
class Part:
    """Keeps the frames between two shares of a recording, and their sound.

    Parts that meet at a share have no frame in common.
    """

    name: ClassVar[str] = "part"
    takes: ClassVar[type] = Resampled
    makes: ClassVar[type] = Resampled

    fps: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"a part goes from one share of a recording to a later one, from 0 to 1, got "
                f"start={self.start:g} end={self.end:g}"
            )

    def run(self, resampled: Resampled) -> Iterator[Resampled | Dropped]:
        total, offset = resampled.num_frames, resampled.start_frame
        first, end = round(self.start * total), round(self.end * total)
        for left, right in ((0, first), (end, total)):
            if left < right:
                yield Dropped.part(
                    resampled.source,
                    self.name,
                    f"outside the part from {self.start:g} to {self.end:g} of the recording",
                    start=offset + left,
                    end=offset + right,
                    fps=self.fps,
                )
        if first == end:
            return

        def frames() -> Iterator[AnyFrame]:
            return islice(resampled.frames(), first, end)

        frames_from = None
        if (begin := resampled.frames_from) is not None:

            def frames_from(number: int) -> Iterator[AnyFrame]:
                return islice(begin(first + number), max(0, end - first - number))

        yield Resampled(
            resampled.source,
            end - first,
            frames,
            part_of_sound(resampled.waveform, sample_of(first, self.fps), sample_of(end, self.fps)),
            offset + first,
            frames_from,
            resampled.own_sound,
        )
