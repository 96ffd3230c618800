"""Sound files => waveforms, and back."""

import logging
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float
from torch import Tensor

from latentsync.files import publish
from latentsync.media.container import (
    Damage,
    OnDamage,
    decode,
    open_media,
    seconds,
    time_zero,
)

logger = logging.getLogger(__name__)


def read_waveform(
    path: Path, sample_rate: int = 16_000, *, on_damage: OnDamage | None = None
) -> Float[Tensor, " t"]:
    """Mono sound of any media file in [-1, 1]; sample 0 is heard with the first video frame.

    Samples that are not numbers are silence, and `on_damage` is told where, or a warning logged.

    It goes through int16 as in the official code (`ffmpeg -f s16le`): exact for a 16 kHz wav, and
    a 5.1 mix-down is normalised instead of clipped.
    """
    with open_media(path) as container:
        stream = audio_stream(container, path)
        resampled = resample(
            decode_audio(container, stream, path, on_damage=on_damage or _warn(path)),
            layout="mono",
            sample_rate=sample_rate,
        )
        pieces = [frame.to_ndarray()[0] for frame in resampled]
    if not pieces:
        raise ValueError(f"{path} has an audio stream without sound (0 samples): use another file")
    samples = np.concatenate(pieces)
    del pieces  # hours of sound are held once, not three times
    return torch.from_numpy(samples).float().div_(32768)


def audio_stream(container: InputContainer, path: Path) -> AudioStream:
    """The audio stream that players choose."""
    stream = container.streams.best("audio")
    if stream is None:
        raise ValueError(f"{path} has no audio stream: give a file with sound")
    if not isinstance(stream, AudioStream):
        raise ValueError(f"{path} has sound in a codec that cannot be decoded: convert it to wav")
    return stream


def decode_audio(
    container: InputContainer,
    stream: AudioStream,
    path: Path,
    *,
    on_damage: OnDamage = lambda damage: None,
) -> Iterator[AudioFrame]:
    """Decoded pieces whose times count from the first video frame (of the sound, if alone).

    A filter or encoder would fail on samples that are not numbers: they become silence, and
    `on_damage` is told of each piece that had some.
    """
    zero = time_zero(container, stream)
    for frame in decode(container, stream, path):
        if frame.pts is not None:
            frame.pts -= round(zero / seconds(1, frame))
        if frame.format.name.rstrip("p") in ("flt", "dbl"):
            frame = _numbers(frame, on_damage)
        yield frame


def _numbers(frame: AudioFrame, on_damage: OnDamage) -> AudioFrame:
    """The same piece, if all its samples are numbers."""
    samples = frame.to_ndarray()
    if np.isfinite(samples).all():
        return frame
    start = 0.0 if frame.pts is None else float(seconds(frame.pts, frame))
    end = start + frame.samples / frame.sample_rate
    on_damage(Damage(start, end, "samples that are not numbers"))
    whole: Any = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    made = AudioFrame.from_ndarray(whole, format=frame.format.name, layout=frame.layout.name)
    made.sample_rate, made.pts, made.time_base = frame.sample_rate, frame.pts, frame.time_base
    return made


def _warn(path: Path) -> OnDamage:
    def on_damage(damage: Damage) -> None:
        logger.warning("%s is damaged: %s", path, damage)

    return on_damage


def resample(
    frames: Iterator[AudioFrame],
    *,
    sample_format: str = "s16p",
    layout: str | None = None,
    sample_rate: int | None = None,
    frame_size: int = 1024,
) -> Iterator[AudioFrame]:
    """Pieces of `frame_size` samples from time 0 on: gaps are silence, what is earlier is cut."""
    resampler = AudioResampler(
        format=sample_format,
        layout=layout,
        rate=sample_rate,
        frame_size=frame_size,
        options={"async": "1", "first_pts": "0"},
    )
    for frame in frames:
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def write_wav(path: Path, waveform: Float[Tensor, " t"], sample_rate: int = 16_000) -> None:
    """Write a mono 16-bit wav file."""
    samples = (waveform.detach().cpu().double() * 32768).round().clamp(-32768, 32767)
    with publish(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.short().numpy().astype("<i2").tobytes())
