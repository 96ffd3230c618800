"""Frames => an H.264 file with sound, whole or not at all."""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from av.video.stream import VideoStream
from jaxtyping import UInt8

from latentsync.files import publish
from latentsync.media.audio import audio_stream, decode_audio, resample
from latentsync.media.container import open_media, rational, seconds, time_zero

BITS_PER_CHANNEL = 96_000
AAC_RATES = frozenset(
    (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
RUN_IN_SECONDS = Fraction(1, 10)

# One chroma sample is the rounded mean of four pixels, and the file is tagged so: sampled in their
# centre (the default of H.264 is beside the left ones).
TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
CHROMA_IN_CENTRE = {"x264-params": "chromaloc=1"}

TimedPacket = tuple[Fraction, Packet]


class VideoWriter:
    """H.264, yuv420p, BT.709; the file appears under its name when the block ends without error.

    4:2:0 needs an even width and height: an odd picture gets its last column or row twice, because
    the alternative (4:4:4) does not play on phones and in browsers.
    `audio` is any file with sound: encoded to AAC at its own rate and channels, or copied packet by
    packet (`copy_audio`), from the moment of its first video frame, for `audio_seconds` at most.
    """

    def __init__(  # noqa: PLR0913  (one file, one call: a config object would only hide them)
        self,
        path: Path,
        *,
        fps: float | Fraction,
        width: int,
        height: int,
        crf: float = 18,
        preset: str = "medium",
        audio: Path | None = None,
        audio_seconds: float | None = None,
        copy_audio: bool = False,
        keyframe_interval: int | None = None,
    ) -> None:
        if fps <= 0 or width <= 0 or height <= 0:
            raise ValueError(f"a video needs fps and size above 0, got {width}x{height} at {fps}")
        self.path = path
        self.fps = rational(fps)
        self.width, self.height = width, height
        self.options = {"crf": str(crf), "preset": preset, **CHROMA_IN_CENTRE}
        if keyframe_interval is not None:
            self.options["g"] = str(keyframe_interval)
        self.audio, self.audio_seconds, self.copy_audio = audio, audio_seconds, copy_audio
        self.num_frames = 0
        self.reformatter = VideoReformatter()

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            partial = stack.enter_context(publish(self.path))
            self.container = stack.enter_context(_create(partial, self.path))
            self.video = self._add_video()
            self.sound = self._add_sound(stack)
            self.waiting = next(self.sound, None)
            stack.push(self._finish)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append one RGB frame."""
        if frame.shape != (self.height, self.width, 3):
            raise ValueError(
                f"{self.path} is {self.width}x{self.height}, got a frame of "
                f"{frame.shape[1]}x{frame.shape[0]}: all frames of a video have one size"
            )
        self.container.mux(self.video.encode(self._to_yuv(frame)))
        self.num_frames += 1
        self._mux_sound(until=self.num_frames / self.fps)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if self.num_frames == 0:
            raise ValueError(f"no frame was written to {self.path}: there is nothing to save")
        self.container.mux(self.video.encode(None))
        self._mux_sound(until=None)

    def _mux_sound(self, until: Fraction | None) -> None:
        while self.waiting is not None and (until is None or self.waiting[0] <= until):
            self.container.mux(self.waiting[1])
            self.waiting = next(self.sound, None)

    def _add_video(self) -> VideoStream:
        stream = self.container.add_stream("libx264", rate=self.fps, options=self.options)
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / self.fps
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        return stream

    def _add_sound(self, stack: ExitStack) -> Iterator[TimedPacket]:
        if self.audio is None:
            return iter(())
        source = stack.enter_context(open_media(self.audio))
        stream = audio_stream(source, self.audio)
        add = _copied if self.copy_audio else _encoded
        limit = None if self.audio_seconds is None else Fraction(self.audio_seconds)
        return add(self.container, source, stream, self.audio, limit)

    def _to_yuv(self, frame: UInt8[np.ndarray, "h w 3"]) -> VideoFrame:
        odd = self.height % 2, self.width % 2
        if any(odd):
            frame = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
        rgb = VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgb24")
        yuv = self.reformatter.reformat(
            rgb,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=TO_YUV,
        )
        yuv.pts, yuv.time_base = self.num_frames, 1 / self.fps
        return yuv


def _create(partial: Path, path: Path) -> OutputContainer:
    options = {"movflags": "+faststart"} if path.suffix.lower() in {".mp4", ".mov"} else {}
    try:
        container = av.open(str(partial), "w", options=options)
    except ValueError as error:
        raise ValueError(
            f"{path} names no kind of video file: let it end in .mp4, .mov or .mkv"
        ) from error
    if "libx264" not in container.supported_codecs:
        container.close()
        raise ValueError(f"{path}: H.264 cannot be stored in this kind of file: use .mp4")
    return container


def _encoded(
    target: OutputContainer,
    source: InputContainer,
    stream: AudioStream,
    path: Path,
    limit: Fraction | None,
) -> Iterator[TimedPacket]:
    """Add an AAC stream and give its packets in order."""
    rate = stream.rate if stream.rate in AAC_RATES else 48_000
    layout = LAYOUTS.get(stream.channels, "stereo")
    bit_rate = min(BITS_PER_CHANNEL, 4 * rate) * AudioLayout(layout).nb_channels
    output = target.add_stream("aac", rate=rate, layout=layout, bit_rate=bit_rate)
    frames = resample(
        decode_audio(source, stream, path),
        sample_format="fltp",
        layout=layout,
        sample_rate=rate,
    )
    return _encode(output, frames, None if limit is None else round(limit * rate))


def _encode(
    output: AudioStream, frames: Iterator[AudioFrame], num_samples: int | None
) -> Iterator[TimedPacket]:
    position = 0
    for frame in frames:
        room = frame.samples if num_samples is None else num_samples - position
        if room == 0:
            break
        piece = frame if frame.samples <= room else _head(frame, room)
        piece.pts, piece.time_base = position, Fraction(1, output.rate)
        position += piece.samples
        yield from _timed(output.encode(piece))
    yield from _timed(output.encode(None))


def _head(frame: AudioFrame, num_samples: int) -> AudioFrame:
    samples = frame.to_ndarray()[:, :num_samples].astype(np.float32)
    head = AudioFrame.from_ndarray(samples, format=frame.format.name, layout=frame.layout.name)
    head.rate = frame.rate
    return head


def _copied(
    target: OutputContainer,
    source: InputContainer,
    stream: AudioStream,
    path: Path,
    limit: Fraction | None,
) -> Iterator[TimedPacket]:
    """Add the source's audio stream as it is and give its packets in order."""
    try:
        output = target.add_stream_from_template(stream)
    except ValueError as error:
        raise ValueError(
            f"{path} has {stream.codec_context.name} sound, which this kind of video file cannot "
            "hold: let it be encoded instead of copied"
        ) from error
    return _copy(source, stream, output, limit)


def _copy(
    source: InputContainer, stream: AudioStream, output: AudioStream, limit: Fraction | None
) -> Iterator[TimedPacket]:
    zero = time_zero(source, stream)
    for packet in source.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        shift = round(zero / seconds(1, packet))
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        start = seconds(packet.pts, packet)
        if limit is not None and start >= limit:
            return
        # An encoder's run-in (up to 0.05 s) stands before time 0; players need and skip it.
        if start > -RUN_IN_SECONDS:
            packet.stream = output
            yield start, packet


def _timed(packets: list[Packet]) -> Iterator[TimedPacket]:
    for packet in packets:
        yield seconds(packet.pts or 0, packet), packet
