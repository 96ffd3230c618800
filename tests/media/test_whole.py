"""Complete files with sound and oddities are accepted, truncated ones detected, in every
container."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.audio import read_waveform
from latentsync.media.container import Damage
from latentsync.media.frame_reader import read_times
from latentsync.media.video import read_frames
from media.sources import shades, tone, write_media

CODECS = {
    ".mkv": ("libx264", "libopus"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".ts": ("libx264", "aac"),
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
}


def late(path: Path, seconds: float) -> Path:
    """2 s of video that begin late, with sound from 0."""
    video, audio = CODECS[path.suffix]
    start = Fraction(seconds).limit_denominator()
    sound = tone(2 + seconds, 48_000)
    times = lambda index: Fraction(index, 25) + start  # noqa: E731
    return write_media(path, shades(50), times=times, codec=video, sound=sound, sound_codec=audio)


def kept_clock(path: Path, seconds: float) -> Path:
    """Cut out of a long recording, with its original times."""
    video, audio = CODECS[path.suffix]
    times = lambda index: Fraction(index, 25) + int(seconds)  # noqa: E731
    return write_media(
        path,
        shades(50),
        times=times,
        codec=video,
        sound=tone(2, 48_000),
        sound_codec=audio,
        sound_starts=seconds,
    )


def slow(path: Path, seconds: float) -> Path:
    """Four pictures, each shown for that long."""
    video, audio = CODECS[path.suffix]
    times = lambda index: index * Fraction(seconds)  # noqa: E731
    sound = tone(4 * seconds, 48_000)
    return write_media(path, shades(4), times=times, codec=video, sound=sound, sound_codec=audio)


MAKERS = {"late": (late, 1.5), "later": (late, 3), "copyts": (kept_clock, 3600), "slow": (slow, 4)}


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("kind", MAKERS)
def test_odd_times_are_no_damage(tmp_path: Path, kind: str, ending: str) -> None:
    make, seconds = MAKERS[kind]
    path = make(tmp_path / f"a{ending}", seconds)
    told: list[Damage] = []
    times = read_times(path, on_damage=told.append)
    waveform = read_waveform(path, on_damage=told.append, on_cut=told.append)
    assert told == []
    assert len(times) == (4 if kind == "slow" else 50)
    assert times.seconds == pytest.approx(len(waveform) / 16000, abs=4.1 if kind == "slow" else 0.1)


WAV = {
    "as ffmpeg": (0xFFFFFFFF, 0xFFFFFFFF),
    "as sox": (0x7FFFF024, 0x7FFFF000),
    "no sizes": (0, 0),
    "the largest of a signed": (0x7FFFFFFF + 36 & 0xFFFFFFFF, 0x7FFFFFFF),
}


@pytest.mark.parametrize("kind", WAV)
@pytest.mark.parametrize("more", [0, 1, 1234])
def test_a_wav_from_a_pipe_is_whole(tmp_path: Path, kind: str, more: int) -> None:
    riff, data = WAV[kind]
    samples = (tone(1, 16_000)[0] * 32767).astype("<i2")[: 16_000 - more]
    head = (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    )
    path = tmp_path / "a.wav"
    path.write_bytes(head + b"data" + struct.pack("<I", data) + samples.tobytes())
    heard = read_waveform(path).numpy()
    np.testing.assert_array_equal(heard * 32768, samples.astype(np.float32))


def test_an_au_from_a_pipe_is_whole(tmp_path: Path) -> None:
    samples = (tone(1, 16_000)[0] * 32767).astype(">i2")[:15_001]
    head = b".snd" + struct.pack(">IIIII", 24, 0xFFFFFFFF, 3, 16_000, 1)
    path = tmp_path / "a.au"
    path.write_bytes(head + samples.tobytes())
    np.testing.assert_array_equal(read_waveform(path).numpy() * 32768, samples.astype(np.float32))


def noise(num_frames: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(num_frames)]


def plain(path: Path) -> Path:
    video, audio = CODECS[path.suffix]
    return write_media(path, noise(50), codec=video, sound=tone(2, 48_000), sound_codec=audio)


def live(path: Path) -> Path:
    """As written by browser recorders and pipes: with unknown size."""
    remux(plain(path.with_name("whole.webm")), path, {"live": "1"})
    return path


def fragmented(path: Path) -> Path:
    whole = plain(path.with_name(f"whole{path.suffix}"))
    remux(whole, path, {"movflags": "frag_keyframe+empty_moov", "frag_duration": "400000"})
    return path


def remux(source: Path, target: Path, options: dict[str, str]) -> None:
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as written:
        streams = {
            stream.index: written.add_stream_from_template(stream, opaque=True)
            for stream in read.streams
        }
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                written.mux(packet)


CUT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mkv": (plain, ".mkv"),
    "webm": (plain, ".webm"),
    "live mkv": (live, ".mkv"),
    "live webm": (live, ".webm"),
    "fragments": (fragmented, ".mp4"),
    "ts": (plain, ".ts"),
}


@pytest.mark.parametrize("kind", CUT)
def test_what_a_cut_file_lost_is_told(tmp_path: Path, kind: str) -> None:
    make, ending = CUT[kind]
    whole = make(tmp_path / f"a{ending}")
    told: list[Damage] = []
    num_frames = len(read_times(whole, on_damage=told.append))
    assert num_frames == 50
    assert told == [], "a whole file is whole"
    data = whole.read_bytes()
    for share in (0.4, 0.55, 0.7, 0.8, 0.9):
        cut = tmp_path / f"cut{ending}"
        cut.write_bytes(data[: int(len(data) * share) | 1])
        told = []
        kept = len(read_times(cut, on_damage=told.append))
        assert kept == 50 or told, f"{kept} of 50 frames at {share} without a word"
        if kept < 50:
            with pytest.raises(ValueError, match="is damaged"):
                list(read_frames(cut))


def test_the_index_that_a_cut_file_lost_is_no_damage(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.mkv")
    data = path.read_bytes()
    cues = data.rindex(bytes.fromhex("1c53bb6b"))
    path.write_bytes(data[: cues + 20])
    told: list[Damage] = []
    assert len(read_times(path, on_damage=told.append)) == 50
    assert told == []


KINDS = {
    ".ogg": "libopus",
    ".mp3": "libmp3lame",
    ".wav": "pcm_s16le",
    ".flac": "flac",
    ".mka": "aac",
    ".m4a": "aac",
}


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("share", [0.6, 0.85, 0.95])
def test_a_voice_that_lost_its_end_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    rng = np.random.default_rng(0)
    sound = (0.3 * rng.normal(size=(1, 96_000))).astype(np.float32)
    options = {"movflags": "faststart"}
    whole = write_media(tmp_path / f"a{ending}", sound=sound, sound_codec=KINDS[ending])
    if ending == ".m4a":
        remux(whole, fast := tmp_path / "fast.m4a", options)
        whole = fast
    assert len(read_waveform(whole)) == pytest.approx(32_000, abs=1000)
    data = whole.read_bytes()
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(data[: int(len(data) * share) | 1])
    with pytest.raises(ValueError, match="is damaged: its audio breaks off at"):
        read_waveform(cut)
