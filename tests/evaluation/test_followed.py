"""Interval, chance and offset of one track that follows another."""

import numpy as np
import pytest

from latentsync.evaluation.followed import follow


def speech(num_frames: int, *, seed: int) -> np.ndarray:
    """Noise of syllables: smooth over six frames, without memory beyond."""
    noise = np.random.default_rng(seed).normal(size=num_frames + 5)
    return np.convolve(noise, np.ones(6) / 6, mode="valid")


def test_a_copy_follows_surely_and_is_not_late():
    mouth = speech(200, seed=0)
    found = follow([(mouth, mouth)])
    assert found.r == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx((1, 1))
    assert found.offset == 0
    assert found.chance < 0.5


@pytest.mark.parametrize("late", [-3, 2])
def test_the_offset_is_how_late_what_came_is(late):
    mouth = speech(240, seed=1)
    assert follow([(mouth[10:210], mouth[10 + late : 210 + late])]).offset == late


def test_strangers_are_within_chance_about_as_often_as_it_says():
    founds = [
        follow([(speech(300, seed=seed), speech(300, seed=1000 + seed))]) for seed in range(40)
    ]
    # One of 40 expected; ten of 40 have a probability below 1e-6.
    assert sum(found.r > found.chance for found in founds) < 10
    assert sum(found.low > 0 or found.high < 0 for found in founds) < 12


def test_the_interval_holds_the_r_of_a_long_recording_and_shrinks_with_length():
    def noisy(seconds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = speech(25 * seconds, seed=seed)
        return wanted + speech(25 * seconds, seed=seed + 500), wanted

    truth = follow([noisy(2000, 0)]).r
    assert truth == pytest.approx(0.5**0.5, abs=0.02)  # half of the variance is its own
    short, long = follow([noisy(10, 1)]), follow([noisy(160, 1)])
    assert short.high - short.low > 2 * (long.high - long.low)
    inside = [follow([noisy(20, seed)]) for seed in range(2, 22)]
    assert sum(found.low < truth < found.high for found in inside) >= 14


def test_frames_without_a_mouth_do_not_count_and_clips_count_by_their_frames():
    mouth = speech(150, seed=3)
    holes = mouth.copy()
    holes[40:60] = np.nan
    found = follow([(holes, mouth), (mouth[:30], -mouth[:30])])
    came = np.concatenate([holes, mouth[:30]])
    wanted = np.concatenate([mouth, -mouth[:30]])
    seen = np.isfinite(came)
    assert found.r == pytest.approx(np.corrcoef(came[seen], wanted[seen])[0, 1])


@pytest.mark.parametrize("tracks", [np.zeros((2, 60)), np.full((2, 60), np.nan), np.ones((2, 2))])
def test_what_tells_nothing_is_nan(tracks):
    found = follow([(tracks[0], tracks[1])])
    assert all(
        np.isnan(value) for value in (found.r, found.low, found.high, found.chance, found.offset)
    )
