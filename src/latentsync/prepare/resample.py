"""Any frame rate and audio => the model's frame rate and 16 kHz mono, as streams."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ClassVar, TypeVar

from latentsync.media.audio import (
    SAMPLE_RATE,
    SoundFormat,
    read_at_two_rates,
    read_pieces,
    sound_format,
)
from latentsync.media.container import UNREADABLE
from latentsync.media.video import glance_at_frames
from latentsync.prepare.stage import Dropped, Recording, Resampled, Source, UnreadableError
from latentsync.prepare.stored_sound import OwnSound, StoredSound, store_both

HEARD = SoundFormat(SAMPLE_RATE, "mono")  # by networks

T = TypeVar("T")


@dataclass(kw_only=True)
class Resample:
    """Resamples frames to `fps` and audio to 16 kHz, without intermediate files of video.

    The sound is on the disk of the output while its recording is prepared, in a file without a name
    (32 kB a second), as it would not fit into memory for every length. `own_sound`: beside it in
    another one at its own rate, with all channels (192 kB a second of stereo at 48 kHz), unless
    that is 16 kHz mono.
    """

    name: ClassVar[str] = "resample"
    takes: ClassVar[type] = Recording
    makes: ClassVar[type] = Resampled

    fps: float
    own_sound: bool = False

    def run(self, recording: Recording) -> Iterator[Resampled | Dropped]:
        source, info = recording.source, recording.info
        try:
            sound, own = self._sound(source)
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
            own,
        )

    def _sound(self, source: Source) -> tuple[StoredSound, OwnSound | None]:
        """A disk without room is no fault of the file: that error ends the run."""
        path, most = source.path, source.end_seconds or inf
        own = format_of(path) if self.own_sound else HEARD
        if own == HEARD:
            pieces = readable(read_pieces(path, max_seconds=most))
            return StoredSound.of(pieces, source.output_dir), None
        pairs = readable(read_at_two_rates(path, own, max_seconds=most))
        return store_both(pairs, own, source.output_dir)


def format_of(path: Path) -> SoundFormat:
    try:
        return sound_format(path)
    except UNREADABLE as error:
        raise UnreadableError(str(error)) from error


def readable(items: Iterator[T]) -> Iterator[T]:
    """The items; raises `UnreadableError` with the reason if the file breaks off."""
    try:
        yield from items
    except UNREADABLE as error:
        raise UnreadableError(str(error)) from error
