"""Which raw files are worth decoding."""

from collections.abc import Iterator

from latentsync.media.video import probe
from latentsync.prepare.stage import Dropped, Recording, Source


class Probe:
    """Drops what is no video, has no sound, or says itself that it is too short."""

    name = "probe"

    def __init__(self, *, min_seconds: float) -> None:
        self.min_seconds = min_seconds

    def run(self, source: Source) -> Iterator[Recording | Dropped]:
        try:
            info = probe(source.path)
        except (ValueError, FileNotFoundError) as error:
            yield Dropped(source.name, self.name, str(error))
            return
        if not info.has_audio:
            yield Dropped(source.name, self.name, "it has no audio stream")
        elif info.duration_seconds < self.min_seconds:
            reason = f"{info.duration_seconds:.2f} s are less than the {self.min_seconds:g} needed"
            yield Dropped(source.name, self.name, reason)
        else:
            yield Recording(source, info)
