"""Media containers => decoded frames, with a clear error message for every kind of bad file."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import overload

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from latentsync.files import FilePart
from latentsync.media.cut import has_no_size, is_cut
from latentsync.media.limits import check_picture

logger = logging.getLogger(__name__)

# What reading a file can raise: our own errors, the system's, and libav's.
UNREADABLE = (ValueError, OSError, av.FFmpegError)

AnyStream = VideoStream | AudioStream
AnyFrame = VideoFrame | AudioFrame

LOST, CLIPPED = "nothing to read", "clipped"


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged span, in seconds of the file; `end_seconds` None: to the end.

    Only errors reported by the decoder are known; concealed errors count as decoded.
    """

    start_seconds: float
    end_seconds: float | None
    reason: str
    effect: str = LOST

    def __str__(self) -> str:
        until = "the end" if self.end_seconds is None else f"{self.end_seconds:.2f} s"
        return f"{self.effect} from {self.start_seconds:.2f} s to {until} ({self.reason})"


OnDamage = Callable[[Damage], None]


def ignore(damage: Damage) -> None:
    """Handler for damage that is reported elsewhere."""


def warn(path: Path) -> OnDamage:
    """A handler that logs the damage."""

    def on_damage(damage: Damage) -> None:
        logger.warning("%s is damaged: %s", path, damage)

    return on_damage


def open_media(path: Path | FilePart) -> InputContainer:
    """An open container; FileNotFoundError or ValueError with the reason if it cannot be read."""
    file = path.path if isinstance(path, FilePart) else path
    if not file.exists():
        raise FileNotFoundError(f"{path} does not exist: check the path")
    if file.is_dir():
        raise ValueError(f"{path} is a folder: give one video or audio file")
    if file.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy or download it again")
    name = path.ffmpeg_name() if isinstance(path, FilePart) else local_name(path)
    try:
        return av.open(name, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be opened as video or audio ({describe(error)}): it is another kind of "
            "file or was cut off; copy, download or convert it again"
        ) from error


def local_name(path: Path) -> str:
    """The path as a `file:` URL, so that FFmpeg takes no part before a colon for a protocol."""
    return f"file:{path}"


def video_stream(container: InputContainer) -> VideoStream | None:
    """The video stream that players choose; cover art does not count."""
    moving = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    best = container.streams.best("video")
    return best if best in moving else next(iter(moving), None)


def find_video(container: InputContainer, path: Path | FilePart) -> VideoStream:
    """The video stream, ready to decode; ValueError with the reason if there is none."""
    stream = video_stream(container)
    if stream is None:
        raise ValueError(f"{path} has no video stream: give a video file")
    if stream.codec_context is None:
        raise ValueError(f"{path} has video in a codec that cannot be decoded: convert it to H.264")
    check_picture(path, stream.codec_context.width, stream.codec_context.height)
    stream.thread_type = "AUTO"
    return stream


def frame_rate(stream: VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def time_zero(container: InputContainer, stream: AnyStream) -> Fraction:
    """Start of the file's own timeline in seconds: its first video frame, if it has video.

    Frame i then belongs to sample i / fps * sample_rate, regardless of the container's offsets.
    """
    first = video_stream(container) or stream
    return seconds(first.start_time or 0, first)


def seconds(ticks: int, clock: AnyStream | Packet | AnyFrame) -> Fraction:
    """Ticks in the time base of a stream, packet or frame => seconds."""
    assert clock.time_base is not None, "libav gives every stream a clock"
    return ticks * clock.time_base


@overload
def decode(
    container: InputContainer,
    stream: VideoStream,
    path: Path,
    *,
    on_spot: OnDamage | None = None,
    on_cut: OnDamage | None = None,
) -> Iterator[VideoFrame]: ...
@overload
def decode(
    container: InputContainer,
    stream: AudioStream,
    path: Path,
    *,
    on_spot: OnDamage | None = None,
    on_cut: OnDamage | None = None,
) -> Iterator[AudioFrame]: ...
def decode(
    container: InputContainer,
    stream: AnyStream,
    path: Path,
    *,
    on_spot: OnDamage | None = None,
    on_cut: OnDamage | None = None,
) -> Iterator[AnyFrame]:
    """Frames in display order; ValueError after the last readable one if the file is truncated.

    A damaged span followed by good frames is skipped and passed to `on_spot`, by default a logged
    warning. With `on_cut` the frames of a truncated file simply end, and `on_cut` gets the span.
    """
    damage = _Damage(time_zero(container, stream), on_spot or warn(path))
    for packet in _packets(container, stream, path, damage):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            damage.found(describe(error))
            continue
        for frame in frames:
            damage.passed(frame)
            yield frame
    if damage.reason is None and is_cut(container, stream, path, damage.read_until):
        damage.reason = "the rest of the file is missing"
    if damage.reason is None:
        return
    if on_cut is None:
        raise ValueError(
            f"{path} is damaged: its {stream.type} {damage.where()} ({damage.reason}); "
            "copy or download it again, or cut it there"
        )
    on_cut(damage.span(until=None))


class _Damage:
    """The current damaged span of the stream, until a good frame from after it arrives."""

    def __init__(self, zero: Fraction, on_spot: OnDamage) -> None:
        self.zero = zero
        self.on_spot = on_spot
        self.reason: str | None = None
        # Ticks and their length, as fractions of seconds take time and are seldom asked for.
        self.good_ticks: tuple[int, Fraction] | None = None
        self.read_ticks: dict[int, tuple[int, Fraction]] = {}  # by stream
        self.newest_pts: int | None = None

    @property
    def good_until(self) -> Fraction | None:
        """The end of the last good frame, in seconds."""
        if self.good_ticks is None:
            return None
        ticks, unit = self.good_ticks
        return ticks * unit - self.zero

    @property
    def read_until(self) -> Fraction:
        """Up to where packets of any stream were read, in seconds of the container."""
        return max([Fraction(0), *(ticks * unit for ticks, unit in self.read_ticks.values())])

    def read(self, packet: Packet) -> None:
        if packet.pts is not None:
            assert packet.time_base is not None, "libav gives every packet a clock"
            end = packet.pts + (packet.duration or 0)
            if end > self.read_ticks.get(packet.stream_index, (0, 0))[0]:
                self.read_ticks[packet.stream_index] = end, packet.time_base

    def found(self, reason: str) -> None:
        self.reason = reason

    def sent(self, packet: Packet) -> None:
        if self.reason is None and packet.pts is not None:
            self.newest_pts = max(packet.pts, self.newest_pts or packet.pts)

    def passed(self, frame: AnyFrame) -> None:
        if frame.pts is None:
            return
        # Decoding threads still output frames sent before the damage after it was detected.
        if self.reason is not None and frame.pts > (self.newest_pts or 0):
            self.on_spot(self.span(until=seconds(frame.pts, frame) - self.zero))
            self.reason = None
        assert frame.time_base is not None, "libav gives every frame a clock"
        self.good_ticks = frame.pts + (frame.duration or 0), frame.time_base

    def span(self, until: Fraction | None) -> Damage:
        assert self.reason is not None, "asked for only where something is broken"
        return Damage(
            float(self.good_until or 0), None if until is None else float(until), self.reason
        )

    def where(self) -> str:
        if self.good_until is None:
            return "cannot be read at the place asked for"
        return f"breaks off at {float(self.good_until):.2f} s"


def _packets(
    container: InputContainer, stream: AnyStream, path: Path, damage: _Damage
) -> Iterator[Packet]:
    """Packets of one stream, then the empty one that flushes the decoder."""
    # If the size is unknown, the last packet is usually incomplete.
    has_size = not has_no_size(container, path)
    try:
        for packet in container.demux():
            damage.read(packet)
            if packet.stream_index != stream.index or packet.size == 0:
                continue
            if packet.is_corrupt and has_size:
                damage.found("a piece of it is incomplete")
            else:
                damage.sent(packet)
                yield packet
    except av.FFmpegError as error:
        damage.found(describe(error))
    flush = Packet()
    flush.stream, flush.time_base = stream, seconds(1, stream)
    yield flush


def rational(fps: float | Fraction) -> Fraction:
    """A frame rate as containers store it (29.97002997 is 30000/1001)."""
    if fps <= 0:
        raise ValueError(f"a frame rate must be above 0, got {fps}")
    return Fraction(fps).limit_denominator(1001)


def describe(error: BaseException) -> str:
    """libav's message, without its error number and path."""
    return getattr(error, "strerror", None) or str(error)
