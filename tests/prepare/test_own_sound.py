"""Clips keep the sound at the recording's own rate, sample by sample, beside that of 16 kHz."""

import wave
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from coded import FPS, RESOLUTION, SIZE, coded_frame, make_detector
from latentsync.data.clips import Clip
from latentsync.media.audio import SoundFormat, audio_stream, read_waveform
from latentsync.media.container import open_media
from latentsync.media.video import VideoWriter
from latentsync.prepare import Recipe, prepare_clips
from latentsync.prepare.again import adopt
from latentsync.prepare.stored_sound import store_both
from latentsync.prepare.sync import shifted

NUM_FRAMES = 150


def noise_of(rate: int, channels: int, seconds: float) -> np.ndarray:
    """Levels of noise, "n c"; no two places are alike."""
    generator = np.random.default_rng(rate)
    shape = (round(rate * seconds), channels)
    return generator.integers(-9000, 9000, shape).astype(np.int16)


def write_recording(path: Path, rate: int, levels: np.ndarray) -> Path:
    """A coded video whose one track of sound has exactly these levels."""
    path.parent.mkdir()
    wav = path.with_suffix(".wav")
    with wave.open(str(wav), "wb") as file:
        file.setnchannels(levels.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(levels.tobytes())
    with VideoWriter(path, fps=FPS, width=SIZE, height=SIZE, crf=4, lossless_audio=wav) as writer:
        for index in range(NUM_FRAMES):
            writer.write(coded_frame(index))
    wav.unlink()
    return path


def tracks_of(path: Path) -> list[tuple[int, int, np.ndarray]]:
    """Rate, channels and 16-bit levels, "n c", of each track of sound."""
    tracks = []
    for index in range(len(open_streams(path))):
        with av.open(str(path)) as container:
            stream = container.streams.audio[index]
            pieces = [frame.to_ndarray() for frame in container.decode(stream)]
        if stream.format.is_packed:
            pieces = [piece.reshape(-1, stream.channels).T for piece in pieces]
        tracks.append((stream.rate, stream.channels, np.concatenate(pieces, axis=1).T))
    return tracks


def open_streams(path: Path) -> tuple:
    with av.open(str(path)) as container:
        return container.streams.audio


def prepared(raw: Path, folder: Path, **options) -> list[Clip]:
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, max_seconds=4.0, **options)
    return prepare_clips(raw, folder, stages=recipe.stages())[0].clips


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 1), (22_050, 6)])
def test_the_second_track_has_the_samples_of_the_recording(rate, channels, tmp_path) -> None:
    levels = noise_of(rate, channels, NUM_FRAMES / FPS)
    raw = write_recording(tmp_path / "raw" / "a.mp4", rate, levels)
    clips = prepared(raw.parent, tmp_path / "set")
    assert [(each.start_frame, each.num_frames) for each in clips] == [(0, 100), (100, 50)]
    for clip in clips:
        (heard_rate, heard_channels, _), (own_rate, own_channels, own) = tracks_of(clip.path)
        assert (heard_rate, heard_channels) == (16_000, 1)
        assert (own_rate, own_channels) == (rate, channels)
        first, end = (
            round(frame * rate / FPS)
            for frame in (clip.start_frame, clip.start_frame + clip.num_frames)
        )
        assert np.array_equal(own, levels[first:end])
        # Readers, and players, still take the first.
        with open_media(clip.path) as container:
            assert audio_stream(container, clip.path).rate == 16_000
        # The two begin together: the clip's sound is the mean of its own channels.
        heard, mean = read_waveform(clip.path).numpy(), own.astype(float).mean(axis=1) / 32768
        steps = np.arange(8000, 24000)
        mean = np.interp(steps / 16_000, np.arange(len(mean)) / rate, mean)
        lags = [np.corrcoef(heard[steps + lag], mean)[0, 1] for lag in range(-3, 4)]
        assert int(np.argmax(lags)) == 3


def test_sound_of_16_khz_is_not_stored_twice_nor_other_sound_unless_wanted(tmp_path) -> None:
    for name, rate, wanted in (("same", 16_000, True), ("other", 48_000, False)):
        levels = noise_of(rate, 1, NUM_FRAMES / FPS)
        raw = write_recording(tmp_path / name / "a.mp4", rate, levels)
        clips = prepared(raw.parent, tmp_path / f"{name}_set", own_sound=wanted)
        assert all(len(tracks_of(each.path)) == 1 for each in clips)


def test_a_set_made_without_it_is_not_continued_unseen(tmp_path) -> None:
    levels = noise_of(48_000, 1, NUM_FRAMES / FPS)
    raw, folder = write_recording(tmp_path / "raw" / "a.mp4", 48_000, levels), tmp_path / "set"
    prepared(raw.parent, folder, own_sound=False)
    with pytest.raises(ValueError, match=r"resample\.own_sound"):
        prepared(raw.parent, folder)
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, max_seconds=4.0)
    adopt(raw.parent, folder, recipe.stages())
    assert all(len(tracks_of(each.path)) == 2 for each in prepared(raw.parent, folder))


@pytest.mark.parametrize("offset", [-3, 2])
def test_a_corrected_offset_moves_both(numbered, offset, tmp_path) -> None:
    """Samples are the number of their frame, at 16 kHz and at 48 kHz."""
    mono = numbered.waveform.numpy().astype(np.int16)
    pairs = [(mono, np.repeat(mono, 3)[:, None])]
    _, own = store_both(pairs, SoundFormat(48_000, "mono"), tmp_path)
    moved = shifted(replace(numbered, own_sound=own), offset, fps=FPS)
    assert moved.own_sound is not None
    moved.own_sound.write(tmp_path / "own.wav")
    with wave.open(str(tmp_path / "own.wav")) as file:
        levels = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    assert np.array_equal(levels, np.repeat(moved.waveform.numpy().astype(np.int16), 3))


def test_a_later_part_of_a_recording_has_its_own_sound(tmp_path: Path) -> None:
    levels = noise_of(48_000, 2, NUM_FRAMES / FPS)
    raw = write_recording(tmp_path / "raw" / "a.mp4", 48_000, levels)
    (tmp_path / "list.csv").write_text(f"path,start\n{raw},1.2\n")
    first, second = prepared(tmp_path / "list.csv", tmp_path / "set")
    assert (first.start_frame, second.start_frame) == (30, 90)
    for clip in (first, second):
        begin = clip.start_frame * 1920
        _, (*_, own) = tracks_of(clip.path)
        assert np.array_equal(own, levels[begin : begin + clip.num_frames * 1920])
