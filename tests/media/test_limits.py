"""Small files that would cause unbounded work are rejected in one sentence."""

import resource
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.frame_reader import build_timeline, read_times
from latentsync.media.limits import Silences
from latentsync.media.video import probe, read_frames
from media.sources import shades, tone, write_media


def y4m(path: Path, fps: str, size: str = "W16 H16", num_frames: int = 3) -> Path:
    frame = b"FRAME\n" + bytes(16 * 16 * 3 // 2)
    path.write_bytes(f"YUV4MPEG2 {size} F{fps} Ip A1:1 C420\n".encode() + frame * num_frames)
    return path


def gap(path: Path, *, hours: int = 2000) -> Path:
    """Ten pictures, and another ten hours later."""
    times = lambda index: Fraction(index, 25) + 3600 * hours * (index // 10)  # noqa: E731
    return write_media(path, shades(20), times=times)


def show(path: Path) -> None:
    build_timeline(read_times(path), seconds=1.0)


PICTURES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a gap of 2000 h": (lambda d: gap(d / "a.mkv"), r"one picture from 0\.36 s to 7200000\.40 s"),
    "a gap of 30 h, mp4": (
        lambda d: gap(d / "a.mp4", hours=30),
        r"one picture from 0\.36 s to 108000",
    ),
    "a million fps": (lambda d: y4m(d / "a.y4m", "1000000:1"), "3 pictures in 3e-06 s"),
    "2000 fps": (lambda d: y4m(d / "a.y4m", "2000:1"), "3 pictures in 0.0015 s"),
    "an hour a picture": (lambda d: y4m(d / "a.y4m", "1:3600"), "one picture from 0.00 s to 3600"),
    "65535x65535": (lambda d: y4m(d / "a.y4m", "25:1", "W65535 H65535"), "cannot be|65535x65535"),
    "10000x10000": (lambda d: y4m(d / "a.y4m", "25:1", "W10000 H10000"), "10000x10000: the most"),
}


@pytest.mark.parametrize("case", PICTURES)
def test_pictures_without_end_are_refused(tmp_path: Path, case: str) -> None:
    make, said = PICTURES[case]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=said) as error:
        show(path)
    assert "\n" not in str(error.value)


def test_a_grid_over_a_gap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one picture from"):
        list(read_frames(gap(tmp_path / "a.mkv"), fps=25))


@pytest.mark.parametrize("fps", ["0:1", "0:0", "1:4", "120:1", "1000:1"])
def test_odd_rates_that_mean_something_are_shown(tmp_path: Path, fps: str) -> None:
    path = y4m(tmp_path / "a.y4m", fps)
    show(path)
    assert probe(path).fps > 0


def wav(path: Path, *, rate: int, channels: int, num_samples: int = 4000) -> Path:
    head = struct.pack(
        "<IHHIIHH", 16, 1, channels, rate, rate * channels * 2 % 2**32, channels * 2 % 2**16, 16
    )
    data = np.zeros(num_samples * channels, "<i2").tobytes()
    chunks = b"WAVEfmt " + head + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


SOUNDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "300 channels": (lambda d: wav(d / "a.wav", rate=16_000, channels=300), "300 channels"),
    "17 channels": (lambda d: wav(d / "a.wav", rate=16_000, channels=17), "17 channels"),
    "1 Hz": (lambda d: wav(d / "a.wav", rate=1, channels=1), "1 samples a second, 100 to"),
    "0 Hz": (lambda d: wav(d / "a.wav", rate=0, channels=1), r"a\.wav"),
    "0 channels": (lambda d: wav(d / "a.wav", rate=16_000, channels=0), r"a\.wav"),
    "4 GHz": (lambda d: wav(d / "a.wav", rate=2**32 - 1, channels=1), r"a\.wav"),
    "2000 h late": (
        lambda d: write_media(
            d / "a.mkv", shades(5), sound=tone(1, 48_000), sound_starts=7_200_000
        ),
        r"no sound from 0\.00 s to 71?9?",
    ),
}


@pytest.mark.parametrize("case", SOUNDS)
def test_sound_without_end_is_refused(tmp_path: Path, case: str) -> None:
    make, said = SOUNDS[case]
    path = make(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=said) as error:
        read_waveform(path)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "KiB"


@pytest.mark.parametrize("channels", [3, 8, 16, 24])
def test_many_channels_are_heard(tmp_path: Path, channels: int) -> None:
    assert len(read_waveform(wav(tmp_path / "a.wav", rate=16_000, channels=channels))) == 4000


def test_silences_add_up_and_overlaps_do_not() -> None:
    silences = Silences(Path("a.mkv"))
    for hour in range(7):
        silences.add(Fraction(1200 * hour), Fraction(1200 * hour + 180))
        silences.add(Fraction(1200 * hour + 100), Fraction(1200 * hour + 200))
    assert silences.total == 6 * 1000
    with pytest.raises(
        ValueError, match=r"no sound from 7400\.00 s to 9000\.00 s: the most are 7200"
    ):
        silences.add(Fraction(9000), Fraction(9001))
