"""Audio of a video being written: encoded, or copied packet by packet."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from latentsync.media.audio import LAYOUTS, audio_stream, decode_audio, is_steady, resample
from latentsync.media.container import ignore, open_media, seconds, time_zero

BITS_PER_CHANNEL = 96_000
AAC_RATES = frozenset(
    (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
)
RUN_IN_SECONDS = Fraction(1, 10)
MAX_LATE_SECONDS = Fraction(1, 1000)
HALF_A_TICK = Fraction(1, 2000)  # Matroska's ticks are milliseconds
# What players expect in an mp4; Matroska accepts all that its muxer supports.
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "ipod"}
NOT_IN_MOV = frozenset(("flac", "opus"))  # libav rejects them only when writing the header
COPIED_INTO_MP4 = frozenset(("aac", "ac3", "alac", "eac3", "mp3"))
# Encoders whose priming samples are copied, and their number.
ENCODERS = {"aac": ("aac", 1024), "mp3": ("libmp3lame", 1105)}

CopyAudio = bool | Literal["auto"]
LOSSLESS = "flac"
TimedPacket = tuple[Fraction, Packet]


class Soundtrack:
    """Adds the audio of a file to a container and yields its packets in sync with the video.

    From the file's first video frame on, for `limit_seconds` at most. `copy`: True copies packets,
    False encodes to AAC at the source's rate and channels, "auto" copies codecs that players expect
    in this container if rate, layout and levels are normal and constant. `lossless`: encodes to
    FLAC of 16 bits instead.
    """

    def __init__(
        self,
        target: OutputContainer,
        path: Path,
        stack: ExitStack,
        *,
        limit_seconds: float | None,
        copy: CopyAudio = False,
        lossless: bool = False,
    ) -> None:
        source = stack.enter_context(open_media(path))
        stream = audio_stream(source, path)
        if copy == "auto":
            codec = stream.codec_context.codec.canonical_name
            copy = _is_usual(codec, target) and _starts_well(target, path) and is_steady(path)
        add = _lossless if lossless else _copied if copy else _encoded
        limit = None if limit_seconds is None else Fraction(limit_seconds)
        self.packets = add(target, source, stream, path, limit)
        self.waiting = next(self.packets, None)

    def until(self, moment: Fraction | None) -> Iterator[Packet]:
        """The remaining packets up to `moment` seconds; None: all."""
        while self.waiting is not None and (moment is None or self.waiting[0] <= moment):
            yield self.waiting[1]
            self.waiting = next(self.packets, None)


def check_copy(audio: Path, out: Path) -> None:
    """ValueError if the audio cannot be copied into a file of this name."""
    with (
        open_media(audio) as source,
        av.open(BytesIO(), "w", format=FORMATS[out.suffix.lower()]) as target,
    ):
        _copied(target, source, audio_stream(source, audio), audio, None)


def _is_usual(codec: str, target: OutputContainer) -> bool:
    is_usual = target.format.name == "matroska" or codec in COPIED_INTO_MP4
    return is_usual and codec in target.supported_codecs


def _starts_well(target: OutputContainer, path: Path) -> bool:
    """Whether a copy is aligned with the picture to the sample."""
    with open_media(path) as source:
        stream = audio_stream(source, path)
        run_in = _run_in(target, source, stream)
        if run_in <= 0:
            return -run_in <= MAX_LATE_SECONDS * stream.rate
        with _made_with_run_in(stream) as made:
            return made is not None and made[1] == run_in


def _run_in(target: OutputContainer, source: InputContainer, stream: AudioStream) -> int:
    """Number of priming samples before time 0 to declare; negative: samples missing after it.

    0 for containers other than Matroska, which allow negative times, and for sources that declare
    it themselves: Matroska and Opus.
    """
    declares = "matroska" in source.format.name or stream.codec_context.name.endswith("opus")
    needs_none = target.format.name != "matroska" or declares
    zero = time_zero(source, stream)
    for packet in source.demux(stream):
        if packet.pts is not None:
            start = seconds(packet.pts, packet) - zero
            if start > -RUN_IN_SECONDS:
                run_in = round(-start * stream.rate)
                return min(0, run_in) if needs_none else run_in
    return 0


def _add_copy(
    target: OutputContainer, stream: AudioStream, run_in: int
) -> tuple[AudioStream, Fraction]:
    """The stream, and the earliest time of packets it accepts."""
    if run_in <= 0:
        return target.add_stream_from_template(stream), -RUN_IN_SECONDS
    with _made_with_run_in(stream) as made:
        if made is None:
            return target.add_stream_from_template(stream), Fraction(0)
        output = target.add_stream_from_template(made[0])
        output.codec_context.extradata = stream.codec_context.extradata
        return output, -Fraction(made[1], stream.rate)


@contextmanager
def _made_with_run_in(stream: AudioStream) -> Iterator[tuple[AudioStream, int] | None]:
    """A similar stream with the priming of its encoder, and that in samples.

    Only an encoder can declare priming to a muxer; without it, the muxer shifts the video.
    """
    encoder = ENCODERS.get(stream.codec_context.codec.canonical_name)
    if encoder is None:
        yield None
        return
    name, num_samples = encoder
    with av.open(BytesIO(), "w", format="matroska") as aside:
        made = aside.add_stream(name, rate=stream.rate, layout=stream.layout.name)
        assert isinstance(made, AudioStream), "the encoder's name decides"
        aside.start_encoding()
        yield made, num_samples


def _encoded(
    target: OutputContainer,
    source: InputContainer,
    stream: AudioStream,
    path: Path,
    limit: Fraction | None,
) -> Iterator[TimedPacket]:
    """Add an AAC stream and yield its packets in order."""
    rate = stream.rate if stream.rate in AAC_RATES else 48_000
    layout = LAYOUTS.get(stream.channels, "stereo")
    bit_rate = min(BITS_PER_CHANNEL, 4 * rate) * AudioLayout(layout).nb_channels
    output = target.add_stream("aac", rate=rate, layout=layout, bit_rate=bit_rate)
    decoded = decode_audio(source, stream, path, on_damage=ignore)  # reported when first read
    return _encode(output, decoded, "fltp", limit)


def _lossless(
    target: OutputContainer,
    source: InputContainer,
    stream: AudioStream,
    path: Path,
    limit: Fraction | None,
) -> Iterator[TimedPacket]:
    """Add a FLAC stream of the source's rate and channels and yield its packets in order."""
    layout = LAYOUTS.get(stream.channels, "stereo")
    output = target.add_stream(LOSSLESS, rate=stream.rate, layout=layout)
    assert isinstance(output, AudioStream), "the encoder's name decides"
    output.codec_context.format = AudioFormat("s16")
    decoded = decode_audio(source, stream, path, on_damage=ignore)
    packets = _encode(output, decoded, "s16", limit)
    # The last one is empty: it carries a checksum for files that can be written twice.
    return ((start, packet) for start, packet in packets if packet.size)


def _encode(
    output: AudioStream,
    decoded: Iterator[AudioFrame],
    sample_format: str,
    limit: Fraction | None,
) -> Iterator[TimedPacket]:
    """The packets of decoded sound, in the format of the stream."""
    num_samples = None if limit is None else round(limit * output.rate)
    frames = resample(
        decoded, sample_format=sample_format, layout=output.layout.name, sample_rate=output.rate
    )
    position = 0
    for frame in frames:
        room = frame.samples if num_samples is None else num_samples - position
        if room == 0:
            break
        piece = frame if frame.samples <= room else _head(frame, room)
        piece.pts, piece.time_base = position, Fraction(1, output.rate)
        position += piece.samples
        yield from _with_times(output.encode(piece))
    yield from _with_times(output.encode(None))


def _head(frame: AudioFrame, num_samples: int) -> AudioFrame:
    per_sample = 1 if frame.format.is_planar else frame.layout.nb_channels
    every: Any = frame.to_ndarray()
    samples = np.ascontiguousarray(every[:, : num_samples * per_sample])
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
    """Add the source's audio stream unchanged and yield its packets in order."""
    codec = stream.codec_context.codec.canonical_name
    try:
        if target.format.name == "mov" and codec in NOT_IN_MOV:
            raise ValueError(f"no {codec} in mov")
        with open_media(path) as again:
            run_in = _run_in(target, again, audio_stream(again, path))
        output, earliest = _add_copy(target, stream, run_in)
    except ValueError as error:
        raise ValueError(
            f"{path} has {stream.codec_context.name} sound, which this kind of video file cannot "
            "hold: let it be encoded instead of copied"
        ) from error
    return _copy(source, stream, output, earliest, limit)


def _copy(
    source: InputContainer,
    stream: AudioStream,
    output: AudioStream,
    earliest: Fraction,
    limit: Fraction | None,
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
        # Priming samples (up to 0.05 s) are before time 0; players need them and skip them.
        if start > earliest - HALF_A_TICK:
            packet.stream = output
            yield start, packet


def _with_times(packets: list[Packet]) -> Iterator[TimedPacket]:
    for packet in packets:
        yield seconds(packet.pts or 0, packet), packet
