"""Any frame rate and audio => the model's frame rate and 16 kHz mono, as streams."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.container import UNREADABLE
from latentsync.media.video import read_frames
from latentsync.prepare.stage import Dropped, Frame, Recording, Resampled, UnreadableError


@dataclass(kw_only=True)
class Resample:
    """Resamples frames to `fps` and audio to 16 kHz, without intermediate files."""

    name: ClassVar[str] = "resample"
    takes: ClassVar[type] = Recording
    makes: ClassVar[type] = Resampled

    fps: float

    def run(self, recording: Recording) -> Iterator[Resampled | Dropped]:
        source, info = recording.source, recording.info
        try:
            waveform = read_waveform(source.path, SAMPLE_RATE)
        except UNREADABLE as error:
            yield Dropped(source.name, self.name, str(error))
            return
        # Only frames with complete audio count.
        num_heard = int(len(waveform) * self.fps // SAMPLE_RATE)
        num_seen = round(info.duration_seconds * self.fps)
        if num_heard < num_seen:
            reason = "picture beyond the end of the sound"
            yield Dropped.part(
                source, self.name, reason, start=num_heard, end=num_seen, fps=self.fps
            )
        yield Resampled(
            source,
            min(num_heard, num_seen),
            lambda: readable(read_frames(source.path, fps=self.fps)),
            waveform,
        )


def readable(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames; raises `UnreadableError` with the reason if the file breaks off."""
    try:
        yield from frames
    except UNREADABLE as error:
        raise UnreadableError(str(error)) from error
