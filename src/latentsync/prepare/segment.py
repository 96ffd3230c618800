"""Long recordings => segments of nearly equal length, each of one shot."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from math import ceil
from typing import ClassVar

from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.faces.tracking.shots import ShotDetector
from latentsync.media.audio import SAMPLE_RATE
from latentsync.prepare.stage import Dropped, Resampled, Segment, UnreadableError


@dataclass(kw_only=True)
class Cut:
    """Cuts every shot into the fewest equal segments of at most `max_seconds`.

    With 10 s they last 5-10 s, unless the shot is shorter; shots below `min_seconds` are dropped.
    A shot ends where the picture changes `cut_ratio` times as much as motion does (see
    `ShotDetector`); None takes the recording for one shot, as versions without shots did.

    Equal lengths require the shot's end, so a recording is read twice; no frame is kept.
    """

    name: ClassVar[str] = "segment"
    takes: ClassVar[type] = Resampled
    makes: ClassVar[type] = Segment

    fps: float
    min_seconds: float
    max_seconds: float
    cut_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.max_seconds < 2 * self.min_seconds:
            raise ValueError(
                f"max_seconds={self.max_seconds:g} must be twice min_seconds={self.min_seconds:g} "
                "or more: a shot is cut into equal segments"
            )
        if self.cut_ratio is not None and self.cut_ratio <= 0:
            raise ValueError(
                f"cut_ratio={self.cut_ratio:g} must be positive; null does not look for cuts"
            )
        self.min_frames = ceil(self.min_seconds * self.fps)
        self.max_frames = int(self.max_seconds * self.fps)

    def run(self, resampled: Resampled) -> Iterator[Segment | Dropped]:
        if resampled.num_frames < self.min_frames:
            reason = f"{resampled.num_frames} frames with sound, {self.min_frames} are needed"
            yield self._dropped(resampled, reason, 0, resampled.num_frames)
            return
        frames, index = resampled.frames(), 0
        shots = self.shots(resampled)
        last = shots[-1][1] if shots else 0
        if last < resampled.num_frames:
            reason = "the picture ends before the time that the file's header says"
            yield self._dropped(resampled, reason, last, resampled.num_frames)
        for start, end in shots:
            if end - start < self.min_frames:
                reason = f"a shot of {end - start} frames, {self.min_frames} are needed"
                yield self._dropped(resampled, reason, start, end)
                for _ in islice(frames, end - start):
                    pass
                continue
            for length in equal_lengths(end - start, self.max_frames):
                part = islice(frames, length)
                yield self._segment(resampled, index, start, part, length)
                for _ in part:  # the next segment starts after unread frames
                    pass
                start += length
                index += 1

    def shots(self, resampled: Resampled) -> list[tuple[int, int]]:
        """First and end frame of every shot."""
        if self.cut_ratio is None:
            return [(0, resampled.num_frames)]
        detector, starts, num_answers = ShotDetector(self.cut_ratio), list[int](), 0

        def note(answers: list[bool]) -> None:
            nonlocal num_answers
            for begins in answers:
                if begins:
                    starts.append(num_answers)
                num_answers += 1

        end = resampled.num_frames
        try:
            for frame in islice(resampled.frames(), end):
                note(detector(frame))
            note(detector.finish())
            end = num_answers
        except UnreadableError:  # raised again when the last segment is read
            note(detector.finish())
        return list(pairwise([*(starts or [0]), end])) if end else []

    def _segment(
        self, resampled: Resampled, index: int, start: int, frames: Iterator, length: int
    ) -> Segment:
        first, end = sample_of(start, self.fps), sample_of(start + length, self.fps)
        waveform, at = resampled.waveform[first:end], resampled.start_frame + start
        is_one_shot = self.cut_ratio is not None
        begin = resampled.frames_from

        def again() -> Iterator[AnyFrame]:
            assert begin is not None
            return islice(begin(start), length)

        return Segment(
            resampled.source, index, at, frames, waveform, is_one_shot, again if begin else None
        )

    def _dropped(self, resampled: Resampled, reason: str, start: int, end: int) -> Dropped:
        start, end = resampled.start_frame + start, resampled.start_frame + end
        return Dropped.part(resampled.source, self.name, reason, start=start, end=end, fps=self.fps)


def equal_lengths(total: int, maximum: int) -> list[int]:
    """The fewest lengths of at most `maximum` that add up to `total`; they differ by 1 at most."""
    count = ceil(total / maximum)
    return [total * (index + 1) // count - total * index // count for index in range(count)]


def sample_of(frame: int, fps: float) -> int:
    """The first audio sample of a frame."""
    return round(frame * SAMPLE_RATE / fps)
