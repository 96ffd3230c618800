"""Selects the raw files worth decoding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from latentsync.media.container import UNREADABLE
from latentsync.media.video import probe
from latentsync.prepare.stage import Dropped, Recording, Source


@dataclass(kw_only=True)
class Probe:
    """Drops files that are no video, have no audio, or are too short by their header."""

    name: ClassVar[str] = "probe"
    takes: ClassVar[type] = Source
    makes: ClassVar[type] = Recording

    min_seconds: float

    def run(self, source: Source) -> Iterator[Recording | Dropped]:
        if not source.path.is_file():
            yield Dropped(source.name, self.name, "it is no regular file, or a link to nowhere")
            return
        try:
            info = probe(source.path)
        except UNREADABLE as error:
            yield Dropped(source.name, self.name, str(error))
            return
        if not info.has_audio:
            still = "; it is a still picture" if info.num_frames == 1 else ""
            yield Dropped(source.name, self.name, f"it has no audio stream{still}")
        elif info.duration_seconds < self.min_seconds:
            reason = f"{info.duration_seconds:.2f} s are less than the {self.min_seconds:g} needed"
            yield Dropped(source.name, self.name, reason)
        else:
            yield Recording(source, info)
