"""Video files => frames, as a stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from latentsync.media.clip_reader import ClipReader, open_clip
from latentsync.media.colour import ColourTags, Orientation
from latentsync.media.container import (
    decode,
    find_video,
    frame_rate,
    open_media,
    rational,
    seconds,
    time_zero,
)
from latentsync.media.deinterlace import Deinterlacer
from latentsync.media.frame import QuickFrame, RgbReader
from latentsync.media.limits import check_stay
from latentsync.media.timeline import round_half_up
from latentsync.media.writer import VideoWriter

__all__ = ["ClipReader", "VideoInfo", "VideoWriter", "open_clip", "probe", "read_frames"]

DYNAMIC = {
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}
# Keyframes are found by decoding time, which is earlier than the display time.
SEEK_MARGIN_SECONDS = 1


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Properties of a video file; sizes as displayed, after rotation.

    `time_base`: seconds per tick of the video stream. `sample_aspect_ratio`: width of a displayed
    pixel divided by its height. `dynamic`: kinds of per-frame HDR metadata.
    """

    path: Path
    fps: Fraction
    num_frames: int
    width: int
    height: int
    rotation: int
    duration_seconds: float
    has_audio: bool
    codec: str
    pixel_format: str
    sample_aspect_ratio: Fraction
    time_base: Fraction
    colour: ColourTags
    dynamic: tuple[str, ...] = ()


def probe(path: Path) -> VideoInfo:
    """Properties of a video; decodes one frame, which holds the rotation."""
    with open_media(path) as container:
        stream = find_video(container, path)
        first = next(decode(container, stream, path), None)
        if first is None:
            raise ValueError(f"{path} has a video stream without a single frame: use another file")
        return _info(path, container, stream, first)


def _info(
    path: Path, container: InputContainer, stream: VideoStream, first: VideoFrame
) -> VideoInfo:
    orientation = Orientation.of(first)
    size = (first.height, first.width) if orientation.transposed else (first.width, first.height)
    fps = frame_rate(stream)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if stream.duration is not None:
        duration = float(seconds(stream.duration, stream))
    elif container.duration is not None:
        # Matroska durations start at 0, even if the video starts later.
        late = time_zero(container, stream) if "matroska" in container.format.name else 0
        duration = max(0.0, float(Fraction(container.duration, av.time_base) - late))
    else:
        duration = float(stream.frames / fps)
    return VideoInfo(
        path=path,
        fps=fps,
        num_frames=stream.frames or max(round(duration * fps), 1),
        width=size[0],
        height=size[1],
        rotation=orientation.degrees,
        duration_seconds=duration,
        has_audio=bool(container.streams.audio),
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        sample_aspect_ratio=1 / aspect if orientation.transposed else aspect,
        time_base=seconds(1, stream),
        colour=ColourTags.of(first),
        dynamic=tuple(sorted({DYNAMIC[kind] for kind in DYNAMIC if kind in first.side_data})),
    )


def read_frames(
    path: Path,
    *,
    fps: float | Fraction | None = None,
    start_seconds: float = 0.0,
    num_frames: int | None = None,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """RGB frames as displayed, one in memory at a time.

    With `fps`, frames are resampled to a grid that starts at `start_seconds`, dropped or repeated
    as ffmpeg's fps filter does; otherwise every stored frame is returned. Interlaced frames are
    made progressive.
    """
    shown = _shown(path, fps, start_seconds)
    yield from islice(map(RgbReader().read, shown), num_frames)


def glance_at_frames(
    path: Path, *, fps: float | Fraction | None = None, start_seconds: float = 0.0
) -> Iterator[QuickFrame]:
    """The frames of `read_frames`, not converted yet: quickly as a whole, exactly in parts."""
    quick, exact = RgbReader(quick=True), RgbReader()
    for frame in _shown(path, fps, start_seconds):
        yield QuickFrame(frame, quick, exact)


def _shown(path: Path, fps: float | Fraction | None, start_seconds: float) -> Iterator[VideoFrame]:
    with open_media(path) as container:
        stream = find_video(container, path)
        with_times = _with_times(
            container, stream, path, Fraction(start_seconds).limit_denominator(10**6)
        )
        yield from _stored(with_times) if fps is None else _on_grid(with_times, rational(fps))


@dataclass(frozen=True, slots=True)
class _FrameAt:
    """A decoded frame with its times in seconds from the requested start."""

    start: Fraction
    end: Fraction
    frame: VideoFrame


def _with_times(
    container: InputContainer, stream: VideoStream, path: Path, start_seconds: Fraction
) -> Iterator[_FrameAt]:
    start = time_zero(container, stream) + start_seconds
    if start_seconds > SEEK_MARGIN_SECONDS:
        container.seek(int((start - SEEK_MARGIN_SECONDS) / seconds(1, stream)), stream=stream)
    step = 1 / frame_rate(stream)
    end = start - start_seconds
    decoded = decode(container, stream, path)
    is_whole = start_seconds <= SEEK_MARGIN_SECONDS
    for frame in Deinterlacer().over(decoded, from_start=is_whole):
        begin = end if frame.pts is None else seconds(frame.pts, frame)
        check_stay(path, end - start, begin - start)
        end = begin + (seconds(frame.duration, frame) if frame.duration else step)
        yield _FrameAt(begin - start, end - start, frame)


def _stored(frames: Iterator[_FrameAt]) -> Iterator[VideoFrame]:
    """Every frame whose midpoint is after the start, as times in files are rounded."""
    return (with_times.frame for with_times in frames if with_times.start + with_times.end > 0)


def _on_grid(frames: Iterator[_FrameAt], fps: Fraction) -> Iterator[VideoFrame]:
    """Slot k shows the last frame whose time, rounded to a slot, is at most k.

    The rule of ffmpeg's fps filter, which is not used because a filter graph cannot handle frames
    that change size.
    """
    slot, held = 0, None
    for with_times in frames:
        arrival = round_half_up(with_times.start * fps)
        while held is not None and slot < arrival:
            yield held.frame
            slot += 1
        held = with_times
    while held is not None and slot < round_half_up(held.end * fps):
        yield held.frame
        slot += 1
