"""Any sound in any container: picture and sound start at 0 and are in sync."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.soundtrack import check_copy
from latentsync.media.video import VideoWriter
from media.sources import SIZE, shades, write_media

VOICES = {
    "mp3": ("a.mp3", "libmp3lame", {}),
    "mp3 at 24 kHz": ("a.mp3", "libmp3lame", {"rate": 24_000}),
    "m4a": ("a.m4a", "aac", {}),
    "m4a at 44.1 kHz": ("a.m4a", "aac", {"rate": 44_100}),
    "wav": ("a.wav", "pcm_s16le", {}),
    "opus": ("a.ogg", "libopus", {}),
    "flac": ("a.flac", "flac", {}),
    "ac3": ("a.ac3", "ac3", {}),
    "mp3 in mkv": ("a.mkv", "libmp3lame", {}),
    "aac of a video": ("a.mp4", "aac", {"frames": shades(25)}),
    "aac that begins before its video": (
        "a.mp4",
        "aac",
        {"frames": shades(25), "times": lambda index: Fraction(index + 1, 25)},
    ),
    "aac that begins after its video": (
        "a.mov",
        "aac",
        {"frames": shades(25), "sound_starts": 0.3},
    ),
}


def clicks(rate: int) -> np.ndarray:
    """Noise that swells and fades, which correlates with itself at one lag only."""
    moments = np.arange(rate) / rate
    noise = np.random.default_rng(0).normal(size=1000)
    coarse = np.interp(moments, np.arange(1000) / 1000, noise)
    return (0.2 * coarse)[None].astype(np.float32)


def lag(one: np.ndarray, other: np.ndarray) -> int:
    """Number of samples by which `one` is late."""
    length = 1 << (len(one) + len(other)).bit_length()
    product = np.fft.rfft(one, length) * np.fft.rfft(other, length).conj()
    place = int(np.fft.irfft(product).argmax())
    return place if place < length // 2 else place - length


@pytest.fixture(scope="module", params=VOICES)
def voice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, codec, more = VOICES[request.param]
    rate = more.get("rate", 48_000)
    path = tmp_path_factory.mktemp(request.param.replace(" ", "_")) / name
    return write_media(path, sound=clicks(rate), sound_codec=codec, **more)


@pytest.mark.parametrize("copy", [True, False, "auto"])
@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".m4v"])
def test_picture_and_sound_start_at_0(
    voice: Path, tmp_path: Path, ending: str, copy: bool | str
) -> None:
    out = tmp_path / f"out{ending}"
    try:
        with VideoWriter(
            out, fps=25, width=SIZE, height=SIZE, audio=voice, copy_audio=copy
        ) as writer:
            for frame in shades(25):
                writer.write(frame)
    except ValueError as error:
        assert copy is True
        assert "cannot hold" in str(error)
        with pytest.raises(ValueError, match="cannot hold"):
            check_copy(voice, out)
        return
    check_copy(voice, out.with_suffix(".mkv"))
    for kind in ("video", "audio"):
        with av.open(str(out)) as container:
            stream = container.streams.best(kind)
            first = next(container.decode(stream))
            # A copied stream cannot begin before its first packet.
            late = 0.3 if copy is True and kind == "audio" and "after" in voice.parent.name else 0
            assert float(first.pts * first.time_base) == pytest.approx(
                late, abs=0.025 if late or (copy is True and kind == "audio") else 1e-3
            )
    given, heard = read_waveform(voice).numpy(), read_waveform(out).numpy()
    assert abs(lag(heard, given)) <= 32, "2 ms"
    assert len(heard) == pytest.approx(len(given), abs=1600)


@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_lossless_track_ends_at_the_sample(num_channels: int, tmp_path: Path) -> None:
    """The limit is inside a frame of sound, whose channels are interleaved."""
    generator = np.random.default_rng(num_channels)
    levels = generator.integers(-9000, 9000, (8000, num_channels)).astype(np.int16)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(levels.tobytes())
    with VideoWriter(
        tmp_path / "a.mp4", fps=25, width=64, height=64, audio_seconds=0.7,
        lossless_audio=tmp_path / "a.wav",
    ) as writer:  # fmt: skip
        for _ in range(25):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        pieces = [frame.to_ndarray() for frame in container.decode(audio=0)]
    stored = np.concatenate(pieces, axis=1).reshape(-1, num_channels)
    assert np.array_equal(stored, levels[:5600])
