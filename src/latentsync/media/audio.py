"""Sound files => waveforms, and back."""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float
from torch import Tensor

from latentsync.files import publish
from latentsync.media.container import decode, open_media, seconds, time_zero


def read_waveform(path: Path, sample_rate: int = 16_000) -> Float[Tensor, " t"]:
    """Mono sound of any media file in [-1, 1]; sample 0 is heard with the first video frame.

    It goes through int16 as in the official code (`ffmpeg -f s16le`): exact for a 16 kHz wav, and
    a 5.1 mix-down is normalised instead of clipped.
    """
    with open_media(path) as container:
        stream = audio_stream(container, path)
        resampled = resample(
            decode_audio(container, stream, path), layout="mono", sample_rate=sample_rate
        )
        pieces = [frame.to_ndarray()[0] for frame in resampled]
    if not pieces:
        raise ValueError(f"{path} has an audio stream without sound (0 samples): use another file")
    return torch.from_numpy(np.concatenate(pieces)).float() / 32768


def audio_stream(container: InputContainer, path: Path) -> AudioStream:
    """The audio stream that players choose."""
    stream = container.streams.best("audio")
    if stream is None:
        raise ValueError(f"{path} has no audio stream: give a file with sound")
    if not isinstance(stream, AudioStream):
        raise ValueError(f"{path} has sound in a codec that cannot be decoded: convert it to wav")
    return stream


def decode_audio(
    container: InputContainer, stream: AudioStream, path: Path
) -> Iterator[AudioFrame]:
    """Decoded pieces whose times count from the first video frame (of the sound, if alone)."""
    zero = time_zero(container, stream)
    for frame in decode(container, stream, path):
        if frame.pts is not None:
            frame.pts -= round(zero / seconds(1, frame))
        yield frame


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
