"""Sound as left by recorders and editors: concatenated, far too loud, with NaNs."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.audio.frame import AudioFrame

from latentsync.media.audio import is_steady, read_waveform
from latentsync.media.container import Damage
from latentsync.media.video import VideoWriter
from media.sources import SIZE, shades, tone, write_media

# Two recordings in one file: encoder, suffix, and rate and layout of both.
JOINED = {
    "mp3, another rate": ("libmp3lame", ".mp3", (44_100, "stereo"), (22_050, "stereo")),
    "mp3, one channel less": ("libmp3lame", ".mp3", (44_100, "stereo"), (44_100, "mono")),
    "mp3, both": ("libmp3lame", ".mp3", (16_000, "mono"), (48_000, "stereo")),
    "ac3, 2.0 then 5.1": ("ac3", ".ac3", (48_000, "stereo"), (48_000, "5.1")),
    "ac3, 5.1 then 2.0 of another rate": ("ac3", ".ac3", (48_000, "5.1"), (44_100, "stereo")),
    "aac, another rate": ("aac", ".aac", (44_100, "mono"), (48_000, "stereo")),
    "mp2": ("mp2", ".mp2", (48_000, "stereo"), (32_000, "mono")),
}
CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}


def joined(folder: Path, case: str) -> Path:
    """1 s of 440 Hz, then 1 s of 880 Hz."""
    codec, ending, *kinds = JOINED[case]
    path = folder / f"joined{ending}"
    whole = b""
    for hertz, (rate, layout) in zip((440, 880), kinds, strict=True):
        half = folder / f"half{ending}"
        sound = tone(1, rate, channels=CHANNELS[layout], hertz=hertz)
        write_media(half, sound=sound, rate=rate, layout=layout, sound_codec=codec)
        data = half.read_bytes()
        # The header with the frame count of the first half would apply to the whole file.
        start = (
            data.index(b"\xff\xf3" if rate <= 24_000 else b"\xff\xfb")
            if codec[3:] == "mp3lame"
            else 0
        )
        whole += data[start:]
    path.write_bytes(whole)
    return path


def peak_hertz(waveform: torch.Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(waveform).abs()
    return float(spectrum.argmax()) * rate / len(waveform)


@pytest.mark.parametrize("case", JOINED)
def test_sound_that_changes_on_the_way_is_heard_to_its_end(tmp_path: Path, case: str) -> None:
    waveform = read_waveform(joined(tmp_path, case))
    # Every encoder adds up to two frames of silence to a recording.
    assert len(waveform) == pytest.approx(2 * 16000, abs=0.15 * 16000)
    assert peak_hertz(waveform[3200:14400], 16000) == pytest.approx(440, abs=3)
    assert peak_hertz(waveform[20800:30400], 16000) == pytest.approx(880, abs=3)
    levels = [float(waveform[a:b].std()) for a, b in ((4800, 12800), (21600, 29600))]
    assert levels[1] == pytest.approx(levels[0], rel=0.45), "a mix-down may be quieter, not silent"


@pytest.mark.parametrize("case", JOINED)
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_of_sound_that_changes_the_soundtrack_is_of_one_kind(
    tmp_path: Path, case: str, name: str
) -> None:
    voice = joined(tmp_path, case)
    assert not is_steady(voice)
    out = tmp_path / name
    writer = VideoWriter(out, fps=25, width=SIZE, height=SIZE, audio=voice, copy_audio="auto")
    with writer:
        for frame in shades(50):
            writer.write(frame)
    with av.open(str(out)) as container:
        kinds = {(piece.sample_rate, piece.layout.name) for piece in container.decode(audio=0)}
    assert len(kinds) == 1
    heard = read_waveform(out)
    assert peak_hertz(heard[3200:14400], 16000) == pytest.approx(440, abs=3)
    assert peak_hertz(heard[20800:30400], 16000) == pytest.approx(880, abs=3)


def write_floats(path: Path, samples: np.ndarray, *, double: bool = False) -> Path:
    """16 kHz mono in a wav of floats."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "pcm_f64le" if double else "pcm_f32le", rate=16000, layout="mono"
        )
        kind = np.float64 if double else np.float32
        frame = AudioFrame.from_ndarray(
            samples[None].astype(kind), format="dbl" if double else "flt", layout="mono"
        )
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


SPEECH = 0.5 * np.sin(np.arange(32000) / 9) * np.sin(np.arange(32000) / 3000)
LOUD = {
    "a little": (2.4, False),
    "whole numbers of 16 bits": (2.0**15, False),
    "peaks of 7e5": (1.4e6, False),
    "whole numbers of 32 bits": (2.0**31, False),
    "the largest floats": (6e38, False),
    "beyond them": (1e300, True),
}


@pytest.mark.parametrize("case", LOUD)
def test_loud_sound_is_clipped_and_said_once(tmp_path: Path, case: str) -> None:
    factor, double = LOUD[case]
    voice = write_floats(tmp_path / "a.wav", SPEECH * factor, double=double)
    told: list[Damage] = []
    waveform = read_waveform(voice, on_damage=told.append)
    expected = torch.from_numpy((SPEECH * factor).clip(-1, 1)).float()
    torch.testing.assert_close(waveform, expected, atol=1e-4, rtol=0)
    [damage] = told
    assert str(damage).startswith("clipped from ")
    assert f"{np.abs(SPEECH * factor).max():.3g} times full scale" in str(damage)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("case", [*LOUD, "not numbers"])
def test_no_encoder_sees_loud_sound(tmp_path: Path, case: str, name: str) -> None:
    samples, double = SPEECH.copy(), False
    if case == "not numbers":
        samples[8000:12000], samples[20000] = np.nan, -np.inf
    else:
        factor, double = LOUD[case]
        samples = samples * factor
    voice = write_floats(tmp_path / "a.wav", samples, double=double)
    out = tmp_path / name
    with VideoWriter(
        out, fps=25, width=SIZE, height=SIZE, audio=voice, copy_audio="auto"
    ) as writer:
        for frame in shades(50):
            writer.write(frame)
    told: list[Damage] = []
    heard = read_waveform(out, on_damage=told.append).numpy()
    assert 31600 <= len(heard) <= 32000 + 2 * 1024, "an encoder fills its last frame"
    expected = np.nan_to_num(samples, nan=0, neginf=0).clip(-1, 1)
    n = min(len(heard), len(expected))
    assert np.corrcoef(heard[:n], expected[:n])[0, 1] > 0.99
    assert not [damage for damage in told if "numbers" in str(damage)]


def test_sound_at_full_scale_is_no_damage(tmp_path: Path) -> None:
    told: list[Damage] = []
    square = np.sign(SPEECH)
    read_waveform(write_floats(tmp_path / "a.wav", square), on_damage=told.append)
    loud = 1.98 * tone(1, 48000)
    for name, codec in (("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.ogg", "libopus")):
        path = write_media(tmp_path / name, sound=loud, sound_codec=codec)
        read_waveform(path, on_damage=told.append)
        assert is_steady(path)
    assert told == []
