"""Synthetic speakers: sound and picture agree, and everything is determined by the seed."""

from pathlib import Path

import numpy as np
import pytest

from latentsync.data.synthetic import (
    VISEMES,
    Speaker,
    draw_world,
    faces_of,
    read_truth,
    render_clip,
)
from latentsync.data.synthetic.render import Portrait, at, head_motion, render
from latentsync.data.synthetic.speech import (
    TRACES,
    TRACK_RATE,
    Track,
    Voice,
    speak,
    truth_of,
    viseme_track,
)
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.media.video import read_frames

VOICE = Voice(f0=120.0, tract=1.0)
STILL = dict.fromkeys(("blink", "gaze_x", "gaze_y", "x", "y", "roll", "yaw", "pitch"), 0.0) | {
    "scale": 1.0
}


def held(viseme: str, seconds: float = 1.0) -> Track:
    """One sustained viseme, without co-articulation."""
    num = round(seconds * TRACK_RATE)
    return {
        name: np.full(num, value, dtype=np.float32)
        for name, value in zip(TRACES, VISEMES[viseme], strict=True)
    }


def loudness(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def centroid_hz(sound: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE) * power).sum() / power.sum())


def test_silence_is_a_closed_mouth() -> None:
    # Mouth shapes move more slowly than the sound source, so look at the middle of a pause.
    track = viseme_track(60.0, np.random.default_rng(0))
    quiet = (track["voice"] + track["fric"] < 0.005).astype(float)
    deep = np.convolve(quiet, np.ones(31) / 31, mode="same") > 0.999
    assert 0.03 < deep.mean() < 0.3
    assert track["open"][deep].max() < 0.02
    sound = speak(track, VOICE, np.random.default_rng(1))
    at_samples = np.repeat(deep, SAMPLE_RATE // TRACK_RATE)
    assert loudness(sound[at_samples]) < 0.01 * loudness(sound[~at_samples])


def test_open_vowels_are_louder_than_closed_lips(rng: np.random.Generator) -> None:
    hum, vowel, pause = (loudness(speak(held(name), VOICE, rng)) for name in ("MM", "AA", "sil"))
    assert vowel > 1.5 * hum > 0.0
    assert pause == 0.0


def test_the_first_formant_follows_the_opening() -> None:
    # F1 = 250 + 560 open: the strongest harmonic below 1 kHz is within one f0 of it.
    for viseme in ("AA", "EE", "II", "OO"):
        sound = speak(held(viseme), VOICE, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(sound))
        hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
        low = hz < 1000
        strongest = hz[low][np.argmax(power[low])]
        assert abs(strongest - (250 + 560 * VISEMES[viseme][0])) < VOICE.f0


def test_fricatives_are_told_apart_by_their_pitch(rng: np.random.Generator) -> None:
    hiss, hush, vowel = (centroid_hz(speak(held(name), VOICE, rng)) for name in ("SS", "SH", "OO"))
    assert hiss > 4500 > hush > 2000 > vowel


@pytest.mark.parametrize("f0", [85.0, 130.0, 255.0])
def test_the_loudness_does_not_saturate(f0: float) -> None:
    track = viseme_track(10.0, np.random.default_rng(3))
    sound = speak(track, Voice(f0, 1.0), np.random.default_rng(4))
    assert len(sound) == 10 * SAMPLE_RATE
    assert np.abs(sound).max() > 0.2
    assert np.mean(np.abs(sound) > 0.99) < 1e-3


def test_every_shape_is_reached_and_changes_smoothly() -> None:
    track = viseme_track(60.0, np.random.default_rng(5))
    for name in ("open", "width", "round", "teeth", "tongue"):
        assert -1e-6 <= track[name].min() < 0.15
        assert track[name].max() > 0.75
        # Smoothed over 75 ms, a step of height 1 rises by at most 5 ms / (sqrt(2 pi) sigma).
        assert np.abs(np.diff(track[name])).max() < 0.005 / (2.5066 * 0.075 / 2.355) * 1.1


def test_truth_is_the_track_at_the_times_of_the_frames() -> None:
    ramp = np.arange(2 * TRACK_RATE, dtype=np.float32) / TRACK_RATE
    truth = truth_of(dict.fromkeys(TRACES, ramp), fps=25.0)
    assert truth["open"].dtype == np.float32
    np.testing.assert_allclose(truth["open"], np.arange(50) / 25.0, atol=1e-6)


def test_a_drawn_mouth_opens_as_far_as_it_is_told(rng: np.random.Generator) -> None:
    portrait = Portrait(Speaker.random(rng), 128)
    rest = at(truth_of(held("sil")), 0)
    closed = portrait.frame(rest, STILL).astype(int)
    changed = [
        np.abs(portrait.frame({**rest, "open": value}, STILL).astype(int) - closed).sum()
        for value in (0.25, 0.5, 1.0)
    ]
    assert 0 < changed[0] < changed[1] < changed[2]
    rows, _ = np.nonzero(
        np.abs(portrait.frame({**rest, "open": 1.0}, STILL).astype(int) - closed).max(axis=2) > 24
    )
    assert rows.min() > 0.5 * 128  # only the lower face


def test_points_move_with_the_head(rng: np.random.Generator) -> None:
    portrait = Portrait(Speaker.random(rng), 100)
    left, right, nose = portrait.points(STILL)
    assert left[0] < nose[0] < right[0]
    assert left[1] == pytest.approx(right[1]) and nose[1] > left[1]
    moved = portrait.points({**STILL, "x": 0.1})
    np.testing.assert_allclose((moved - portrait.points(STILL))[:, 0], 0.1 * 28.5, atol=1e-4)
    turned = portrait.points({**STILL, "roll": 0.2})
    across = turned[1] - turned[0]
    assert np.arctan2(across[1], across[0]) == pytest.approx(0.2, abs=1e-5)
    assert np.hypot(*across) == pytest.approx(np.hypot(*(right - left)), rel=1e-5)


def test_heads_move_slowly() -> None:
    motion = head_motion(100, 25.0, np.random.default_rng(0))
    portrait = Portrait(Speaker.random(np.random.default_rng(0)), 256)
    points = np.stack([portrait.points(at(motion, index)) for index in range(100)])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=2)
    assert 0.05 < steps.mean() < 1.5
    assert steps.max() < 6


def test_the_same_seed_draws_the_same_frames_and_sound(tmp_path: Path) -> None:
    first = render_clip(tmp_path / "first", seed=5, seconds=0.6, size=64)
    again = render_clip(tmp_path / "again", seed=5, seconds=0.6, size=64)
    other = render_clip(tmp_path / "other", seed=6, seconds=0.6, size=64)
    frames = [np.stack(list(read_frames(path))) for path in (first, again, other)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])
    assert first.with_suffix(".wav").read_bytes() == again.with_suffix(".wav").read_bytes()
    assert first.with_suffix(".wav").read_bytes() != other.with_suffix(".wav").read_bytes()


def test_a_clip_is_a_video_with_its_sound_and_its_truth(talking_clip: Path) -> None:
    truth = read_truth(talking_clip)
    frames = list(read_frames(talking_clip))
    assert frames[0].shape == (128, 128, 3)
    assert len(frames) == len(truth["open"]) == 75
    assert truth["points"].shape == (75, 3, 2)
    assert (int(truth["seed"]), float(truth["fps"])) == (11, 25.0)
    assert {"open", "width", "round", "teeth"} <= truth.keys()
    sound = read_waveform(talking_clip.with_suffix(".wav"))
    assert len(sound) == 3 * SAMPLE_RATE
    assert abs(len(read_waveform(talking_clip)) - len(sound)) < SAMPLE_RATE // 25


def test_encoded_frames_are_the_drawn_ones(talking_clip: Path) -> None:
    rng = np.random.default_rng(11)
    speaker = Speaker.random(rng)
    mouth = truth_of(viseme_track(3.0, rng))
    motion = head_motion(75, 25.0, rng)
    drawn = next(render(Portrait(speaker, 128), mouth, motion)).astype(float)
    error = np.mean((next(read_frames(talking_clip)).astype(float) - drawn) ** 2)
    assert 10 * np.log10(255**2 / error) > 28


def test_a_world_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    def draw(num_speakers: int) -> list[Path]:
        return draw_world(
            tmp_path, num_speakers=num_speakers, seconds=0.4, size=64, seed=20, progress=False
        )

    (first,) = draw(1)
    written = first.stat().st_mtime_ns
    paths = draw(2)
    assert [path.name for path in paths] == ["00000.mp4", "00001.mp4"]
    assert first.stat().st_mtime_ns == written
    assert [int(read_truth(path)["seed"]) for path in paths] == [20, 21]
    assert not list(tmp_path.glob(".*"))


def test_a_clip_without_its_truth_is_drawn_again(tmp_path: Path) -> None:
    (path,) = draw_world(tmp_path, num_speakers=1, seconds=0.4, size=64, progress=False)
    whole = path.read_bytes()
    path.with_name("00000.truth.npz").unlink()
    path.write_bytes(whole[:100])
    draw_world(tmp_path, num_speakers=1, seconds=0.4, size=64, progress=False)
    assert len(list(read_frames(path))) == len(read_truth(path)["open"]) == 10


def test_a_world_of_another_recipe_is_refused(tmp_path: Path) -> None:
    draw_world(tmp_path, num_speakers=0, seconds=0.4, size=64, progress=False)
    with pytest.raises(ValueError, match=r"'seconds': 0\.4.*'seconds': 0\.8"):
        draw_world(tmp_path, num_speakers=1, seconds=0.8, size=64, progress=False)


@pytest.mark.slow
def test_other_processes_draw_the_same_world(tmp_path: Path) -> None:
    alone = draw_world(tmp_path / "a", num_speakers=2, seconds=0.4, size=64, progress=False)
    shared = draw_world(
        tmp_path / "b", num_speakers=2, seconds=0.4, size=64, num_workers=2, progress=False
    )
    for one, other in zip(alone, shared, strict=True):
        assert one.with_suffix(".wav").read_bytes() == other.with_suffix(".wav").read_bytes()
        for mine, theirs in zip(read_frames(one), read_frames(other), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_video_that_was_not_drawn_has_no_truth(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"real\.mp4 is no drawn video"):
        read_truth(tmp_path / "real.mp4")


@pytest.mark.parametrize(
    ("names", "faces"),
    [
        (["a.mp4", "b.mp4"], "drawn"),
        (["filmed.mp4"], "recorded"),
        (["a.mp4", "filmed.mp4"], "drawn and recorded"),
        (["a.mp4", "moved away.mp4"], None),
        ([], None),
    ],
)
def test_what_faces_a_set_was_made_of(tmp_path, names, faces):
    for name in ("a.mp4", "a.truth.npz", "b.mp4", "b.truth.npz", "filmed.mp4"):
        (tmp_path / name).touch()
    assert faces_of(tmp_path / name for name in names) == faces
