"""A video's stored frames with their times, sequentially or by index."""

from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from latentsync.media.container import (
    Damage,
    OnDamage,
    decode,
    find_video,
    frame_rate,
    ignore,
    open_media,
    seconds,
    time_zero,
    warn,
)
from latentsync.media.deinterlace import Deinterlacer
from latentsync.media.frame import Frame, Picture, RgbReader, UnreadFrame
from latentsync.media.limits import check_stay
from latentsync.media.timeline import FrameTimes, Timeline, build_timeline, round_half_up

__all__ = [
    "Damage",
    "FrameReader",
    "FrameTimes",
    "Timeline",
    "TimesLog",
    "build_timeline",
    "read_times",
    "stored_frames",
    "unread_frames",
]

# Keyframes are found by decoding time, which is earlier than the display time.
SEEK_MARGIN_SECONDS = 1
# Shorter jumps ahead are decoded through: the keyframe before the target is seldom nearer.
JUMP_SECONDS = 10
# Limit for one block of a video read backwards, which is decoded forwards, then reversed.
REVERSED_BYTES = 128 * 2**20
# A header that implies a longer last frame means that frames are missing.
LAST_SECONDS = 1


class TimesLog:
    """Collects `FrameTimes` while frames are read; 8 bytes per frame."""

    def __init__(self, time_base: Fraction) -> None:
        self.time_base = time_base
        self.starts = array("q")
        self.end = 0

    def add(self, start: int, duration: int) -> None:
        self.starts.append(start)
        self.end = start + duration

    def times(self) -> FrameTimes:
        """The times of the frames so far; ValueError if there were none."""
        return FrameTimes(self.time_base, np.array(self.starts, np.int64), self.end)


def stored_frames(
    path: Path,
    *,
    on_damage: OnDamage | None = None,
    quick: bool = False,
    deinterlacer: Deinterlacer | None = None,
) -> Iterator[tuple[int, int, Frame]]:
    """Every stored frame: start and duration in ticks (`probe(path).time_base`), and picture.

    See `unread_frames`. `quick`: see `RgbReader`.
    """
    unread = unread_frames(path, on_damage=on_damage, quick=quick, deinterlacer=deinterlacer)
    for start, duration, frame in unread:
        yield start, duration, frame.rgb()


def unread_frames(
    path: Path,
    *,
    on_damage: OnDamage | None = None,
    quick: bool = False,
    deinterlacer: Deinterlacer | None = None,
) -> Iterator[tuple[int, int, UnreadFrame]]:
    """As `stored_frames`, with pictures that are converted when they are first looked at.

    Starts begin at 0 and strictly increase: a missing or decreasing time is replaced by the end of
    the previous frame. All pictures have the size of the first. Damaged spans are skipped and
    passed to `on_damage`, by default a logged warning. Interlaced frames are made progressive, by
    `deinterlacer` if given.
    """
    with open_media(path) as container:
        stream = find_video(container, path)
        to_rgb = RgbReader(_stored_size(stream), quick=quick)
        ticked = _ticked(
            container, stream, path, on_damage or warn(path), deinterlacer or Deinterlacer()
        )
        for start, duration, frame in ticked:
            yield start, duration, UnreadFrame(frame, to_rgb)


def read_times(path: Path, *, on_damage: OnDamage | None = None) -> FrameTimes:
    """The times of `stored_frames`, without converting pictures."""
    with open_media(path) as container:
        stream = find_video(container, path)
        log = TimesLog(seconds(1, stream))
        ticked = _ticked(container, stream, path, on_damage or warn(path), Deinterlacer("off"))
        for start, duration, _ in ticked:
            log.add(start, duration)
    if not log.starts:
        raise ValueError(f"{path} holds no frame that can be decoded: use another file")
    return log.times()


class FrameReader:
    """Stored frames by index (as `stored_frames` counts them), in any order, as a stream.

    Holds one decoded frame in addition to the decoder's own; reading backwards, up to 128 MiB. A
    frame that cannot be decoded is replaced by the previous one and added to `missed`.
    """

    def __init__(self, path: Path, times: FrameTimes, *, deinterlace: str = "auto") -> None:
        self.path, self.times, self.deinterlace = path, times, deinterlace
        self.missed: set[int] = set()

    def read(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames at these indices, each a new array."""
        with closing(self.pictures(numbers)) as pictures:
            for picture in pictures:
                yield picture.rgb()

    def pictures(self, numbers: Iterable[int]) -> Generator[Picture]:
        """As `read`, but converted lazily.

        Increasing indices are decoded on, an equal one repeats the picture, decreasing ones are
        read in reversed blocks, long jumps seek. ValueError for an index out of range.
        """
        cursor = _Cursor(self.path, self.times, self.deinterlace, self.missed)
        with closing(cursor):
            waiting = iter(numbers)
            number = next(waiting, None)
            while number is not None:
                if number >= cursor.number:
                    yield cursor.picture(cursor.at(number))
                    number = next(waiting, None)
                else:
                    run, number = _falling(number, waiting, cursor.piece_length())
                    yield from _reversed(cursor, run)


def _falling(first: int, waiting: Iterator[int], length: int) -> tuple[list[int], int | None]:
    """Leading indices that never increase and span less than `length`, and the next one."""
    run = [first]
    for number in waiting:
        if not first - length < number <= run[-1]:
            return run, number
        run.append(number)
    return run, None


def _reversed(cursor: "_Cursor", run: list[int]) -> Iterator[Picture]:
    frames = {number: cursor.at(number) for number in sorted(set(run))}
    for number, following in zip(run, [*run[1:], None], strict=True):
        yield cursor.picture(frames[number])
        if following != number:
            del frames[number]


class _Cursor:
    """A position in an open video; decodes on, or seeks by the file's index."""

    def __init__(self, path: Path, times: FrameTimes, deinterlace: str, missed: set[int]) -> None:
        self.path, self.times, self.deinterlace, self.missed = path, times, deinterlace, missed
        self.number = 0
        self._open()

    def _open(self) -> None:
        self.container = open_media(self.path)
        self.stream = find_video(self.container, self.path)
        self.to_rgb = RgbReader(_stored_size(self.stream))
        self._restart(from_start=True)

    def _restart(self, *, from_start: bool) -> None:
        self.frames = self._numbered(from_start)
        self.shown: tuple[int, VideoFrame] | None = None
        self.next_frame: tuple[int, VideoFrame] | None = None

    def _numbered(self, from_start: bool) -> Iterator[tuple[int, VideoFrame]]:
        # Damage was already reported when the times were read.
        deinterlacer = Deinterlacer(self.deinterlace)
        ticked = _ticked(
            self.container, self.stream, self.path, ignore, deinterlacer, from_start=from_start
        )
        for start, _, frame in ticked:
            number = int(np.searchsorted(self.times.starts, start, side="right")) - 1
            yield max(0, number), frame

    def close(self) -> None:
        self._restart(from_start=True)
        self.container.close()

    def picture(self, frame: VideoFrame) -> Picture:
        return Picture(frame, self.to_rgb)

    def piece_length(self) -> int:
        """How many decoded frames fit into `REVERSED_BYTES`."""
        assert self.shown is not None, "falling numbers come after another"
        return max(1, REVERSED_BYTES // sum(plane.buffer_size for plane in self.shown[1].planes))

    def at(self, number: int) -> VideoFrame:
        """The frame at this index, or the nearest decodable one before it."""
        if not 0 <= number < len(self.times):
            raise ValueError(f"{self.path} has frames 0 to {len(self.times) - 1}, got {number}")
        if self._is_far(number) and not self._jump(number):
            # Decoding from the start finds every frame.
            self.close()
            self._open()
        self._advance(number)
        self.number = number
        if self.shown is None:
            raise ValueError(f"{self.path} holds no frame that can be decoded: use another file")
        if self.shown[0] != number:
            self.missed.add(number)
        return self.shown[1]

    def _is_far(self, number: int) -> bool:
        distance = int(self.times.starts[number] - self.times.starts[self.number])
        is_far = distance * self.times.time_base > JUMP_SECONDS
        return distance < 0 or (is_far and self._has_clock())

    def _has_clock(self) -> bool:
        """Whether times are unambiguous: not in concatenated recordings."""
        return self.stream.duration is None or int(self.times.starts[-1]) <= self.stream.duration

    def _jump(self, number: int) -> bool:
        """Whether the frame, or the one before it, was reached by seeking."""
        if not self._has_clock():
            return False
        tick = int(self.times.starts[number]) - int(SEEK_MARGIN_SECONDS / self.times.time_base)
        zero = round(time_zero(self.container, self.stream) / seconds(1, self.stream))
        try:
            self.container.seek(zero + max(0, tick), stream=self.stream)
        except av.FFmpegError:
            return False
        self._restart(from_start=False)
        self._advance(number)
        return self.shown is not None and self.shown[0] <= number

    def _advance(self, number: int) -> None:
        while self.shown is None or self.shown[0] < number:
            following = self.next_frame or next(self.frames, None)
            self.next_frame = None
            if following is None:
                return
            if self.shown is not None and following[0] > number:
                self.next_frame = following
                return
            self.shown = following


def _ticked(
    container: InputContainer,
    stream: VideoStream,
    path: Path,
    on_damage: OnDamage,
    deinterlacer: Deinterlacer,
    *,
    from_start: bool = True,
) -> Iterator[tuple[int, int, VideoFrame]]:
    """Decoded frames with start and duration in ticks since the file's time zero.

    A frame lasts until the next one: with reordered frames, the durations in a file are in decoding
    order.
    """
    base, zero = seconds(1, stream), time_zero(container, stream)
    usual = max(1, round_half_up(1 / frame_rate(stream) / base))
    held: tuple[int, VideoFrame] | None = None
    end = 0
    decoded = decode(container, stream, path, on_spot=on_damage, on_cut=on_damage)
    for frame in deinterlacer.over(decoded, from_start=from_start):
        start = end if frame.pts is None else round((seconds(frame.pts, frame) - zero) / base)
        if held is not None:
            start = start if start > held[0] else end
            check_stay(path, held[0] * base, start * base)
            yield held[0], start - held[0], held[1]
        elif from_start:
            # The first picture is shown from the start, even if earlier ones were lost.
            start = 0
        held, end = (start, frame), start + (frame.duration or usual)
    if held is not None:
        last = _last_duration(stream, held[0], end)
        check_stay(path, held[0] * base, (held[0] + last) * base)
        yield held[0], last, held[1]


def _last_duration(stream: VideoStream, start: int, end: int) -> int:
    """By the header, which is more reliable than the last frame unless the file is truncated."""
    promised = (stream.duration or 0) - start
    most = LAST_SECONDS / seconds(1, stream)
    return promised if 0 < promised < most else end - start


def _stored_size(stream: VideoStream) -> tuple[int, int]:
    """Width and height from the file's header."""
    return stream.codec_context.width, stream.codec_context.height
