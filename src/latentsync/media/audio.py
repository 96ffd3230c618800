"""Audio files <-> waveforms."""

import logging
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, groupby, tee
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float, Int16
from torch import Tensor

from latentsync.files import publish
from latentsync.media.container import (
    CLIPPED,
    Damage,
    OnDamage,
    decode,
    open_media,
    seconds,
    time_zero,
    warn,
)
from latentsync.media.limits import Silences, check_sound

logger = logging.getLogger(__name__)

# What every network here hears.
SAMPLE_RATE = 16_000
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
FLOATS = frozenset(("flt", "dbl"))
FULL_SCALE = 1.0
LOSSY_PEAK = 2.0  # decoders of lossy audio overshoot full scale by less


def read_waveform(
    path: Path,
    sample_rate: int = SAMPLE_RATE,
    *,
    on_damage: OnDamage | None = None,
    on_cut: OnDamage | None = None,
    max_seconds: float = inf,
) -> Float[Tensor, " t"]:
    """Mono audio of a media file in [-1, 1]; sample 0 is aligned with the first video frame.

    Undecodable or non-finite samples become silence and excessive levels are clipped; `on_damage`
    is called with each span, by default it logs a warning. Audio that ends too early raises
    ValueError, unless `on_cut` is given to receive it. Nothing after `max_seconds` is read.

    The samples pass through int16 as in the official code (`ffmpeg -f s16le`): exact for a 16 kHz
    wav, and a 5.1 downmix is normalised instead of clipped.
    """
    pieces = read_pieces(
        path, sample_rate, on_damage=on_damage, on_cut=on_cut, max_seconds=max_seconds
    )
    samples = np.concatenate(list(pieces))
    return torch.from_numpy(samples).float().div_(32768)


def read_pieces(
    path: Path,
    sample_rate: int = SAMPLE_RATE,
    *,
    on_damage: OnDamage | None = None,
    on_cut: OnDamage | None = None,
    max_seconds: float = inf,
) -> Iterator[Int16[np.ndarray, " n"]]:
    """The samples of `read_waveform`, piece by piece as they are decoded, as 16-bit levels."""
    wanted = max_seconds * sample_rate
    num_given = 0
    with open_media(path) as container:
        stream = audio_stream(container, path)
        resampled = resample(
            decode_audio(container, stream, path, on_damage=on_damage or warn(path), on_cut=on_cut),
            layout="mono",
            sample_rate=sample_rate,
        )
        for frame in resampled:
            yield frame.to_ndarray()[0]
            num_given += frame.samples
            if num_given >= wanted:
                break
    check_any(num_given, path)


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """Samples a second, and the channels by libav's name of their layout."""

    rate: int
    layout: str

    @property
    def num_channels(self) -> int:
        return AudioLayout(self.layout).nb_channels


def sound_format(path: Path) -> SoundFormat:
    """What a media file has; of layouts without a common name two channels are taken."""
    with open_media(path) as container:
        stream = audio_stream(container, path)
        return SoundFormat(stream.rate, LAYOUTS.get(stream.channels, "stereo"))


def read_at_two_rates(
    path: Path, own: SoundFormat, *, max_seconds: float = inf
) -> Iterator[tuple[Int16[np.ndarray, " n"], Int16[np.ndarray, "m c"]]]:
    """The pieces of `read_pieces`, each with the sound of about the same time in a format of its
    own, decoded once."""
    num_mono = num_own = 0
    with open_media(path) as container:
        stream = audio_stream(container, path)
        decoded = tee(decode_audio(container, stream, path, on_damage=warn(path)))
        mono = resample(decoded[0], layout="mono", sample_rate=SAMPLE_RATE)
        beside = resample(decoded[1], layout=own.layout, sample_rate=own.rate, sample_format="s16")
        for frame in mono:
            num_mono += frame.samples
            pieces: list[Any] = [np.empty((0, own.num_channels), np.int16)]
            # In step, so that `tee` holds little.
            while num_own * SAMPLE_RATE < num_mono * own.rate:
                piece = next(beside, None)
                if piece is None:
                    break
                num_own += piece.samples
                pieces.append(piece.to_ndarray().reshape(-1, own.num_channels))
            yield frame.to_ndarray()[0], np.concatenate(pieces)
            if num_mono >= max_seconds * SAMPLE_RATE:
                break
    check_any(num_mono, path)


def check_any(num_samples: int, path: Path) -> None:
    """ValueError for a stream without samples."""
    if not num_samples:
        raise ValueError(f"{path} has an audio stream without sound (0 samples): use another file")


def audio_stream(container: InputContainer, path: Path) -> AudioStream:
    """The audio stream that players choose; ValueError if there is none or it cannot be decoded."""
    stream = container.streams.best("audio")
    if stream is None:
        raise ValueError(f"{path} has no audio stream: give a file with sound")
    if not isinstance(stream, AudioStream):
        raise ValueError(f"{path} has sound in a codec that cannot be decoded: convert it to wav")
    check_sound(path, stream.codec_context)
    return stream


def decode_audio(
    container: InputContainer,
    stream: AudioStream,
    path: Path,
    *,
    on_damage: OnDamage = lambda damage: None,
    on_cut: OnDamage | None = None,
) -> Iterator[AudioFrame]:
    """Decoded audio frames, timed from the first video frame (from their own start without video).

    Filters and encoders fail on non-finite samples and hang on extreme levels: the former become
    silence, the latter are clipped. `on_damage` is called for both and for undecodable spans;
    `on_cut` as in `decode`.
    """
    zero = time_zero(container, stream)
    usual = FULL_SCALE if stream.codec_context.name.startswith("pcm_") else LOSSY_PEAK
    ranges, silences = _Ranges(usual, on_damage), Silences(path)
    for frame in decode(container, stream, path, on_spot=on_damage, on_cut=on_cut):
        if frame.pts is not None:
            frame.pts -= round(zero / seconds(1, frame))
            start = seconds(frame.pts, frame)
            silences.add(start, start + Fraction(frame.samples, frame.sample_rate))
        yield ranges.checked(frame)
    ranges.report()


class _Ranges:
    """Makes floating-point audio finite and clips extreme levels.

    Everything louder than `usual` is reported as one span.
    """

    def __init__(self, usual: float, on_damage: OnDamage) -> None:
        self.usual, self.on_damage = usual, on_damage
        self.loud: list[tuple[float, float]] = []
        self.peak = 0.0

    def checked(self, frame: AudioFrame) -> AudioFrame:
        if frame.format.name.rstrip("p") not in FLOATS:
            return frame
        samples: Any = frame.to_ndarray()
        peak = float(np.abs(samples).max(initial=0))
        if peak <= self.usual:  # False if any sample is NaN
            return frame
        start = 0.0 if frame.pts is None else float(seconds(frame.pts, frame))
        end = start + frame.samples / frame.sample_rate
        if not np.isfinite(peak):
            self.on_damage(Damage(start, end, "samples that are not numbers"))
            samples = np.where(np.isfinite(samples), samples, 0).astype(samples.dtype)
            peak = float(np.abs(samples).max())
        if peak > self.usual:
            self.loud = [*self.loud[:1], (start, end)]
            self.peak = max(self.peak, peak)
        return _remade(
            frame, samples.clip(-FULL_SCALE, FULL_SCALE) if peak > LOSSY_PEAK else samples
        )

    def report(self) -> None:
        if self.loud:
            reason = f"samples up to {self.peak:.3g} times full scale: lower its level"
            self.on_damage(Damage(self.loud[0][0], self.loud[-1][1], reason, effect=CLIPPED))


def _remade(frame: AudioFrame, samples: Any) -> AudioFrame:
    """The same audio frame with other samples."""
    made = AudioFrame.from_ndarray(samples, format=frame.format.name, layout=frame.layout.name)
    made.sample_rate, made.pts, made.time_base = frame.sample_rate, frame.pts, frame.time_base
    return made


def resample(
    frames: Iterable[AudioFrame],
    *,
    layout: str,
    sample_rate: int,
    sample_format: str = "s16p",
    frame_size: int = 1024,
) -> Iterator[AudioFrame]:
    """Frames of `frame_size` samples from time 0 on: gaps become silence, earlier sound is cut.

    Rate, channels or format may change midway: each section gets its own resampler, which continues
    where the last one ended; the frame before such a change may be shorter.
    """
    num_given = 0
    for (_, _, rate), stretch in groupby(frames, key=_kind):
        first = round(Fraction(num_given * rate, sample_rate))
        resampler = AudioResampler(
            format=sample_format,
            layout=layout,
            rate=sample_rate,
            frame_size=frame_size,
            options={"async": "1", "first_pts": str(first)},
        )
        for frame in chain(stretch, [None]):
            for piece in resampler.resample(frame):
                num_given += piece.samples
                yield piece


def is_steady(path: Path) -> bool:
    """Whether all of the audio has one rate, one layout and normal levels."""
    damages: list[Damage] = []
    with open_media(path) as container:
        stream = audio_stream(container, path)
        pieces = decode_audio(
            container, stream, path, on_damage=damages.append, on_cut=lambda damage: None
        )
        kinds = {_kind(piece) for piece in pieces}
    return len(kinds) <= 1 and not damages


def _kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def write_wav(path: Path, waveform: Float[Tensor, " t"], sample_rate: int = SAMPLE_RATE) -> None:
    """Write a mono 16-bit wav file."""
    samples = (waveform.detach().cpu().double() * 32768).round().clamp(-32768, 32767)
    with publish(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.short().numpy().astype("<i2").tobytes())
