"""The drawn benchmark: what its conditions change, and that its truth is that of the files."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from latentsync.data.synthetic import read_truth
from latentsync.data.synthetic.conditions import (
    CONDITIONS,
    Condition,
    condition_of,
    moved,
    render_benchmark_clip,
    spoken_track,
    with_noise,
)
from latentsync.evaluation.synthetic_list import synthetic_list
from latentsync.media.audio import read_waveform
from latentsync.media.video import probe, read_frames


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def syllables(condition: Condition) -> float:
    """Openings of the mouth per second."""
    opening = spoken_track(condition, 20.0, generator())["open"]
    assert len(opening) == 20 * 200
    return int(((opening[1:] > 0.3) & (opening[:-1] <= 0.3)).sum()) / 20


def test_the_first_ten_clips_have_one_of_each_condition() -> None:
    assert len(CONDITIONS) == 10
    assert [condition_of(index) for index in range(10)] == list(CONDITIONS)
    assert condition_of(10) == "clean"


def test_fast_and_slow_speech() -> None:
    clean, fast, slow = (syllables(CONDITIONS[name]) for name in ("clean", "fast", "slow"))
    assert fast == pytest.approx(1.5 * clean, rel=0.2)
    assert slow == pytest.approx(0.65 * clean, rel=0.2)


def test_a_pause_shuts_the_mouth_for_its_share() -> None:
    track = spoken_track(CONDITIONS["silences"], 10.0, generator(3))
    shut = (track["open"] < 1e-6) & (track["voice"] < 1e-6)
    longest, run = 0, 0
    for each in shut:
        run = run + 1 if each else 0
        longest = max(longest, run)
    assert longest / len(shut) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("decibels", [10.0, 0.0])
def test_noise_is_as_loud_as_it_says(decibels: float) -> None:
    sound = (0.2 * np.sin(np.arange(32_000) / 9)).astype(np.float32)
    noise = with_noise(sound, decibels, generator()) - sound
    ratio = 10 * np.log10(np.mean(sound**2) / np.mean(noise**2))
    assert ratio == pytest.approx(decibels, abs=0.1)


def test_motion_and_yaw() -> None:
    still, wild = (moved(CONDITIONS[name], 100, generator()) for name in ("clean", "head motion"))
    assert wild["roll"].std() == pytest.approx(2.5 * still["roll"].std(), rel=1e-4)
    np.testing.assert_array_equal(wild["blink"], still["blink"])
    turned = moved(CONDITIONS["profile"], 100, generator())
    assert abs((turned["yaw"] - still["yaw"]).mean()) == pytest.approx(0.45, rel=1e-4)


@pytest.mark.parametrize("name", ["clean", "noise", "hand", "two people", "30 fps"])
def test_a_clip_is_drawn_with_its_truth_and_the_same_again(name: str, tmp_path: Path) -> None:
    index = list(CONDITIONS).index(name)
    video = render_benchmark_clip(tmp_path / "clip", index, seconds=1.0, size=64)
    info, truth = probe(video), read_truth(video)
    assert info.num_frames == (30 if name == "30 fps" else 25)
    assert info.width == (64 + 45 + 1 if name == "two people" else 64)
    assert len(truth["open"]) == 25
    assert truth["fps"] == 25
    assert len(read_waveform(tmp_path / "clip.wav")) == 16_000
    again = render_benchmark_clip(tmp_path / "again", index, seconds=1.0, size=64)
    assert again.read_bytes() == video.read_bytes()
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "clip.wav").read_bytes()
    # Another clip of this condition is of another person.
    other = render_benchmark_clip(tmp_path / "other", index + 10, seconds=1.0, size=64)
    first, second = (next(islice(read_frames(path), 1)) for path in (video, other))
    assert np.abs(first.astype(int) - second).mean() > 10


def test_the_list_has_both_voices_and_draws_once(tmp_path: Path) -> None:
    def make(**words: object) -> list:
        given = {"setting": "auto", "limit": 2, "seconds": 0.5, "num_workers": 1} | words
        return synthetic_list(tmp_path, **given)

    tasks = make()
    assert [task.name for task in tasks] == ["000", "000--001", "001", "001--000"]
    assert [task.condition for task in tasks] == ["clean", "clean", "noise", "noise"]
    written = tasks[0].video.stat().st_mtime_ns
    (own, *_) = make(setting="reconstruction", limit=1)
    assert own == tasks[0]
    assert own.video.stat().st_mtime_ns == written
    assert make(setting="cross")[0].audio == tasks[2].audio
    with pytest.raises(ValueError, match="limit=0 must be positive"):
        make(limit=0)
