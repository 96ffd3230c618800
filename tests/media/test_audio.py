import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.media.audio import read_waveform, write_wav
from media.sources import shades, tone, write_media

GOLDEN_DIR = Path(__file__).parents[1] / "official" / "data"


def onset(waveform: torch.Tensor) -> int:
    return int((waveform.abs() > 0.1).nonzero()[0])


def hertz(waveform: torch.Tensor, sample_rate: int) -> float:
    spectrum = torch.fft.rfft(waveform).abs()
    return float(spectrum.argmax()) * sample_rate / len(waveform)


def test_a_16_khz_wav_is_read_exactly(tmp_path: Path) -> None:
    samples = np.load(GOLDEN_DIR / "wav5_samples.npz")["samples"]
    expected = torch.from_numpy(samples).float() / 32768
    write_wav(tmp_path / "golden.wav", expected)
    assert torch.equal(read_waveform(tmp_path / "golden.wav"), expected)


def test_write_wav_is_plain_16_bit_pcm(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", torch.tensor([0.0, 0.5, -1.0, 1.0, 2.0]), 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(9), "<i2")
    assert samples.tolist() == [0, 16384, -32768, 32767, 32767]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_any_rate_becomes_16_khz(tmp_path: Path, rate: int) -> None:
    write_media(tmp_path / "a.wav", sound=tone(1.5, rate), rate=rate, sound_codec="pcm_s16le")
    waveform = read_waveform(tmp_path / "a.wav")
    assert len(waveform) == pytest.approx(24000, abs=2)
    assert hertz(waveform, 16000) == pytest.approx(440, abs=1)
    assert waveform.abs().max() == pytest.approx(0.5, abs=0.02)


def test_stereo_is_the_mean_of_both_sides(tmp_path: Path) -> None:
    sound = np.concatenate([tone(1, 16000), 0 * tone(1, 16000)])
    path = write_media(
        tmp_path / "a.wav", sound=sound, rate=16000, layout="stereo", sound_codec="pcm_s16le"
    )
    expected = torch.from_numpy(sound.mean(0))
    torch.testing.assert_close(read_waveform(path), expected, atol=1e-4, rtol=0)


def test_loud_surround_sound_does_not_clip(tmp_path: Path) -> None:
    sound = 1.9 * tone(1, 48000, channels=6)
    path = write_media(tmp_path / "a.mkv", sound=sound, layout="5.1", sound_codec="pcm_s16le")
    waveform = read_waveform(path, 48000)
    expected = torch.from_numpy(sound[0])
    scale = float(waveform.norm() / expected.norm())
    assert scale <= 1.001
    torch.testing.assert_close(waveform, expected * scale, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.mp3", "libmp3lame"), ("a.flac", "flac")],
)
def test_any_container_and_codec(tmp_path: Path, name: str, codec: str) -> None:
    sound = np.concatenate([np.zeros((1, 24000), np.float32), tone(1, 48000)], axis=1)
    waveform = read_waveform(write_media(tmp_path / name, sound=sound, sound_codec=codec))
    assert len(waveform) == pytest.approx(24000, abs=800)
    assert onset(waveform) == pytest.approx(8000, abs=120)


@pytest.mark.parametrize("starts", [0.0, 0.3, 1.0])
def test_sample_0_is_heard_with_frame_0(tmp_path: Path, starts: float) -> None:
    path = write_media(
        tmp_path / "a.mkv",
        shades(25),
        sound=tone(1, 16000),
        rate=16000,
        sound_codec="pcm_s16le",
        sound_starts=starts,
    )
    waveform = read_waveform(path)
    assert len(waveform) == pytest.approx(16000 * (1 + starts), abs=20)
    assert onset(waveform) == pytest.approx(16000 * starts, abs=40)


def test_what_is_heard_before_frame_0_is_cut(tmp_path: Path) -> None:
    sound = np.concatenate([tone(0.4, 16000), 0 * tone(1, 16000), tone(0.5, 16000)], axis=1)
    path = write_media(
        tmp_path / "a.mkv",
        shades(25),
        times=lambda index: (index + 10) / 25,
        sound=sound,
        rate=16000,
        sound_codec="pcm_s16le",
    )
    waveform = read_waveform(path)
    assert len(waveform) == pytest.approx(24000, abs=20)
    assert onset(waveform) == pytest.approx(16000, abs=40)


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4", shades(3))
    with pytest.raises(ValueError, match=r"silent\.mp4 has no audio stream: give"):
        read_waveform(silent)
    empty = tmp_path / "empty.wav"
    write_wav(empty, torch.zeros(0))
    with pytest.raises(ValueError, match=r"empty\.wav has an audio stream without sound"):
        read_waveform(empty)
    with pytest.raises(FileNotFoundError, match=r"nothing\.wav does not exist"):
        read_waveform(tmp_path / "nothing.wav")


KINDS = {".mkv": "pcm_s16le", ".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame"}


@pytest.mark.parametrize(("kind", "codec"), KINDS.items())
def test_cut_sound_is_an_error_with_its_second(tmp_path: Path, kind: str, codec: str) -> None:
    whole = write_media(tmp_path / f"whole{kind}", sound=tone(8, 48000), sound_codec=codec)
    assert len(read_waveform(whole)) == pytest.approx(8 * 16000, abs=0.2 * 16000)
    cut = tmp_path / f"cut{kind}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    said = rf"cut\{kind} is damaged: its audio breaks off at [34]\.\d"
    with pytest.raises(ValueError, match=said):
        read_waveform(cut)


@pytest.mark.parametrize(
    ("channels", "rate", "said"),
    [
        (300, 16_000, "300 channels and does not say which is where"),
        (9, 16_000, "9 channels and does not say"),
        (1, 2**31 - 1, "2,147,483,647 samples a second"),
        (1, 10_000_000, "10,000,000 samples a second"),
    ],
)
def test_sound_that_cannot_be_resampled_is_refused_at_once(
    tmp_path: Path, channels: int, rate: int, said: str
) -> None:
    path = write_head(tmp_path / "a.wav", channels=channels, rate=rate)
    with pytest.raises(ValueError, match=said) as raised:
        read_waveform(path)
    assert str(raised.value).startswith(f"{path} ")


@pytest.mark.parametrize(("channels", "rate"), [(8, 16_000), (24, 16_000), (1, 768_000), (1, 100)])
def test_sound_that_can_be_is_not(tmp_path: Path, channels: int, rate: int) -> None:
    path = write_head(tmp_path / "a.wav", channels=channels, rate=rate, samples=rate)
    assert len(read_waveform(path)) == pytest.approx(16_000, abs=170)


def write_head(path: Path, *, channels: int, rate: int, samples: int = 100) -> Path:
    """A wav of silent samples, regardless of what its header says."""
    width = 2 * channels
    path.write_bytes(
        struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + samples * width, b"WAVE", b"fmt ", 16, 1, channels,
            rate, rate * width & 0xFFFFFFFF, width, 16, b"data", samples * width,
        ) + bytes(samples * width)
    )  # fmt: skip
    return path
