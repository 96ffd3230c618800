"""Any frame rate and audio => the model's frame rate and 16 kHz mono, as streams."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import ClassVar, TypeVar

from latentsync.media.audio import SAMPLE_RATE, read_pieces
from latentsync.media.container import UNREADABLE
from latentsync.media.video import glance_at_frames
from latentsync.prepare.stage import Dropped, Recording, Resampled, UnreadableError
from latentsync.prepare.stored_sound import StoredSound

T = TypeVar("T")


@dataclass(kw_only=True)
class Resample:
    """Resamples frames to `fps` and audio to 16 kHz, without intermediate files of video.

    The sound is on the disk of the output while its recording is prepared, in a file without a name
    (32 kB a second), as it would not fit into memory for every length.
    """

    name: ClassVar[str] = "resample"
    takes: ClassVar[type] = Recording
    makes: ClassVar[type] = Resampled

    fps: float

    def run(self, recording: Recording) -> Iterator[Resampled | Dropped]:
        source, info = recording.source, recording.info
        try:
            pieces = readable(read_pieces(source.path, max_seconds=source.end_seconds or inf))
            # A disk without room is no fault of the file: that error ends the run.
            sound = StoredSound.of(pieces, source.output_dir)
        except UnreadableError as error:
            yield Dropped(source.name, self.name, str(error))
            return
        first = round(source.start_seconds * self.fps)
        # Only frames with complete audio count.
        num_heard = int(len(sound) * self.fps // SAMPLE_RATE)
        num_seen = round(min(info.duration_seconds, source.end_seconds or inf) * self.fps)
        if source.listed and num_seen <= first:
            reason = f"the recording has {info.duration_seconds:.2f} s, the list begins later"
            yield Dropped(source.name, self.name, reason)
            return
        if num_heard < num_seen:
            reason = "picture beyond the end of the sound"
            silent = max(num_heard, first)
            yield Dropped.part(source, self.name, reason, start=silent, end=num_seen, fps=self.fps)
        num_frames = max(0, min(num_heard, num_seen) - first)
        yield Resampled(
            source,
            num_frames,
            lambda: readable(
                glance_at_frames(source.path, fps=self.fps, start_seconds=first / self.fps)
            ),
            sound.part(round(first * SAMPLE_RATE / self.fps), len(sound)),
            first,
            lambda number: readable(
                glance_at_frames(
                    source.path, fps=self.fps, start_seconds=(first + number) / self.fps
                )
            ),
        )


def readable(items: Iterator[T]) -> Iterator[T]:
    """The items; raises `UnreadableError` with the reason if the file breaks off."""
    try:
        yield from items
    except UNREADABLE as error:
        raise UnreadableError(str(error)) from error
