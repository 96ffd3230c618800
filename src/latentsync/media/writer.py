"""Frames => an H.264 or H.265 file with audio, complete or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from functools import partial as partial_call
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec import Codec
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from jaxtyping import UInt8

from latentsync.files import publish
from latentsync.media.colour import ColourTags
from latentsync.media.container import describe, local_name, rational
from latentsync.media.frame import Picture
from latentsync.media.hdr import is_hdr
from latentsync.media.soundtrack import CopyAudio, Soundtrack
from latentsync.media.timeline import round_half_up
from latentsync.media.yuv import YuvMaker

ENCODERS = {"h264": "libx264", "hevc": "libx265"}
HEVC_SMALLEST = 64  # libx265 4.1 writes out of bounds for narrower pictures
MAX_CRF = 51
# x264 keeps its lookahead frames in memory, 6 MB each at 1080p. For large pictures, use the
# lookahead of its preset "faster": half the memory, and no larger file on a real clip.
HD_PIXELS, LARGE_LOOKAHEAD = 1280 * 720, "20"
# Codes of both encoders (ITU-T H.273). Without one, players assume left.
CHROMA_PLACES = {"left": 0, "centre": 1, "topleft": 2}
LOOKING_FAR = frozenset(("fast", "medium", "slow", "slower", "veryslow", "placebo"))


@dataclass(eq=False)
class VideoWriter:
    """H.264 or H.265; the file appears under its name when the block ends without error.

    Encodes 4:2:0 with `colour`'s matrix, range, transfer and chroma location, in its 8 or 10 bits,
    and tags it; of a `Picture` stored in that format, only the changes are converted. 4:2:0 needs
    an even width and height: odd pictures get their last column or row repeated, because the
    alternative (4:4:4) does not play on phones and in browsers. `crf` 0 is lossless: for 8 bits
    yuv444p, also of odd size, which differs from the frames only by rounding of RGB to YUV and
    plays in ffmpeg, mpv and VLC; for 10 bits and HDR 4:2:0. `time_base`: seconds per tick, if
    frames are given with starts. `audio` is any file with audio, used from its first video frame on
    for at most `audio_seconds`: encoded to AAC at its own rate and channels, or copied
    (`copy_audio`); "auto" copies what players expect in this container. `lossless_audio` is another
    file with audio, a second track of its rate and channels in FLAC, which players do not choose.
    """

    path: Path
    _: KW_ONLY
    fps: float | Fraction
    width: int
    height: int
    crf: float = 18
    preset: str = "medium"
    tune: str | None = None
    codec: str = "h264"
    time_base: Fraction | None = None
    colour: ColourTags | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    audio: Path | None = None
    audio_seconds: float | None = None
    copy_audio: CopyAudio = False
    lossless_audio: Path | None = None
    keyframe_interval: int | None = None

    def __post_init__(self) -> None:
        width, height, crf, codec = self.width, self.height, self.crf, self.codec
        if self.fps <= 0 or width <= 0 or height <= 0:
            raise ValueError(
                f"a video needs fps and size above 0, got {width}x{height} at {self.fps}"
            )
        if not 0 <= crf <= MAX_CRF:
            raise ValueError(f"crf must be from 0 (lossless) to {MAX_CRF} (worst), got {crf}")
        if codec not in ENCODERS:
            raise ValueError(f"codec must be one of {', '.join(ENCODERS)}, got {codec!r}")
        if codec == "hevc" and min(width, height) < HEVC_SMALLEST:
            raise ValueError(
                f"hevc needs {HEVC_SMALLEST}x{HEVC_SMALLEST} pixels or more, got {width}x{height}: "
                "use codec h264"
            )
        self.rate = rational(self.fps)
        self.tick = self.time_base or 1 / self.rate
        self.encoder = ENCODERS[codec]
        colour = self.colour or ColourTags()
        self.yuv = YuvMaker(pixel_format_for(self.encoder, crf, colour), colour)
        self.options = _options(
            codec, crf, self.preset, self.tune, self.keyframe_interval, self.yuv
        )
        if codec == "h264" and width * height > HD_PIXELS and self.preset in LOOKING_FAR:
            self.options["rc-lookahead"] = LARGE_LOOKAHEAD
        self.num_frames = 0
        self.waiting: VideoFrame | None = None
        self.end: int | None = None

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            partial = stack.enter_context(publish(self.path))
            self.container = stack.enter_context(create_video(partial, self.path, self.encoder))
            self.video = self._add_video()
            add = partial_call(Soundtrack, self.container, limit_seconds=self.audio_seconds)
            self.sounds: list[Soundtrack] = []
            if self.audio is not None:
                self.sounds.append(add(self.audio, stack, copy=self.copy_audio))
            if self.lossless_audio is not None:
                self.sounds.append(add(self.lossless_audio, stack, lossless=True))
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

    def write(
        self, frame: UInt8[np.ndarray, "h w 3"] | Picture, start: Fraction | None = None
    ) -> None:
        """Append a frame or picture shown from `start` seconds, by default 1/fps after the last.

        Starts are rounded to ticks, begin at 0 and increase; ValueError otherwise.
        """
        if frame.shape != (self.height, self.width, 3):
            raise ValueError(
                f"{self.path} is {self.width}x{self.height}, got a frame of "
                f"{frame.shape[1]}x{frame.shape[0]}: all frames of a video have one size"
            )
        yuv = self.yuv.make(frame)
        yuv.pts, yuv.time_base = self._ticks(start), self.tick
        if self.waiting is None and yuv.pts != 0:
            raise ValueError(f"the first frame of {self.path} must start at 0, got {start}")
        self._encode(until=yuv.pts)
        self.waiting = yuv
        self.num_frames += 1

    def finish_at(self, end: Fraction) -> None:
        """Set the end of the last frame (seconds) if it is not 1/fps after its start."""
        self.end = round_half_up(end / self.tick)

    def _ticks(self, start: Fraction | None) -> int:
        return round_half_up((self.num_frames / self.rate if start is None else start) / self.tick)

    def _encode(self, until: int) -> None:
        """Encode the waiting frame, now that its end is known."""
        if self.waiting is None:
            return
        last = self.waiting.pts or 0
        if until <= last:
            raise ValueError(
                f"frames of {self.path} must start and end later than the one before starts, got "
                f"{float(until * self.tick):.6f} s after {float(last * self.tick):.6f} s"
            )
        self.waiting.duration = until - last
        with explained_errors(self.path):
            self.container.mux(self.video.encode(self.waiting))
        self._mux_sound(until * self.tick)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if self.waiting is None:
            raise ValueError(f"no frame was written to {self.path}: there is nothing to save")
        usual = max(1, round_half_up(1 / self.rate / self.tick))
        self._encode(until=(self.waiting.pts or 0) + usual if self.end is None else self.end)
        with explained_errors(self.path):
            self.container.mux(self.video.encode(None))
        self._mux_sound(until=None)

    def _mux_sound(self, until: Fraction | None) -> None:
        for sound in self.sounds:
            mux(self.container, sound.until(until), self.path)

    def _add_video(self) -> VideoStream:
        stream = self.container.add_stream(self.encoder, rate=self.rate, options=self.options)
        assert isinstance(stream, VideoStream), "the encoder's name decides"
        odd = (self.width % 2, self.height % 2) if self.yuv.is_halved else (0, 0)
        stream.width, stream.height = self.width + odd[0], self.height + odd[1]
        stream.pix_fmt = self.yuv.pixel_format
        stream.time_base = stream.codec_context.time_base = self.tick
        stream.codec_context.flags |= Flags.frame_duration
        stream.codec_context.sample_aspect_ratio = self.sample_aspect_ratio
        if self.encoder == ENCODERS["hevc"] and self.container.format.name != "matroska":
            stream.codec_context.codec_tag = "hvc1"  # the tag that Apple's players require
        colour = self.yuv.colour
        stream.codec_context.color_primaries = colour.primaries
        stream.codec_context.color_trc = colour.transfer
        stream.codec_context.colorspace = colour.matrix
        stream.codec_context.color_range = ColorRange.JPEG if colour.full_range else ColorRange.MPEG
        return stream


def pixel_format_for(encoder: str, crf: float, colour: ColourTags) -> str:
    """The pixel format to encode; ValueError if the encoder was built without it."""
    pixel_format = "yuv420p" if colour.depth == 8 else "yuv420p10le"
    if crf == 0 and colour.depth == 8 and not is_hdr(colour.transfer):
        pixel_format = "yuv444p"
    known = [known.name for known in Codec(encoder, "w").video_formats or ()]
    if pixel_format not in known:
        other = next(codec for codec, name in ENCODERS.items() if name != encoder)
        raise ValueError(
            f"this PyAV's {encoder} writes no {pixel_format} ({', '.join(known)}): use codec "
            f"{other}, install PyAV's own wheel, or convert the source to 8 bits"
        )
    return pixel_format


def _options(
    codec: str,
    crf: float,
    preset: str,
    tune: str | None,
    keyframe_interval: int | None,
    yuv: YuvMaker,
) -> dict[str, str]:
    colour = yuv.colour
    place = CHROMA_PLACES[colour.chroma]
    own = [f"chromaloc={place}"] if yuv.is_halved and place else []
    options = {"crf": f"{crf:g}", "preset": preset}
    if codec == "hevc":
        own += ["log-level=none", *(["lossless=1"] if crf == 0 else [])]
    elif crf == 0 and colour.depth > 8:
        options = {"qp": "0", "preset": preset}  # x264's crf 0 is lossless in 8 bits only
    names = ("master-display", "max-cll") if codec == "hevc" else ("mastering-display", "cll")
    if is_hdr(colour.transfer):
        explained_errors = zip(names, (colour.mastering, colour.light), strict=True)
        own += [f"{name}={value}" for name, value in explained_errors if value]
    if own:
        options[ENCODERS[codec].removeprefix("lib") + "-params"] = ":".join(own)
    if tune is not None:
        options["tune"] = tune
    if keyframe_interval is not None:
        options["g"] = str(keyframe_interval)
    return options


@contextmanager
def create_video(partial: Path, path: Path, encoder: str) -> Iterator[OutputContainer]:
    """A container for writing, whose errors name `path`; ValueError if the codec is unsupported."""
    options = {"movflags": "+faststart"} if path.suffix.lower() in {".mp4", ".mov"} else {}
    try:
        container = av.open(local_name(partial), "w", options=options)
    except ValueError as error:
        raise ValueError(
            f"{path} names no kind of video file: let it end in .mp4, .mov or .mkv"
        ) from error
    if encoder not in container.supported_codecs:
        container.close()
        name = {encoder: codec for codec, encoder in ENCODERS.items()}[encoder]
        raise ValueError(f"{path}: {name} cannot be stored in this kind of file: use .mp4")
    try:
        yield container
    except BaseException:
        # On a full disk, closing fails too: report the first error.
        with suppress(av.FFmpegError):
            container.close()
        raise
    with explained_errors(path):
        container.close()


def mux(container: OutputContainer, packets: Iterable[Packet], path: Path) -> None:
    for packet in packets:
        with explained_errors(path):
            container.mux(packet)


@contextmanager
def explained_errors(path: Path) -> Iterator[None]:
    """libav's errors while writing => OSError or ValueError naming the file."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            explained = OSError(
                f"{path} could not be written ({describe(error)}): make room on the disk, "
                "or choose another place"
            )
            explained.errno = error.errno
            raise explained from error
        raise ValueError(
            f"{path} could not be encoded ({describe(error)}): check preset, tune and size"
        ) from error
