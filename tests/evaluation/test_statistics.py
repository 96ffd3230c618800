"""Intervals and p-values: closed forms, and how often they are wrong when nothing is there."""

import math

import numpy as np
import pytest

from latentsync.evaluation.clip_values import ClipTable, differences, read_clips, write_clips
from latentsync.evaluation.statistics import interval, paired_difference, sign_flip_p
from latentsync.metrics.base import Figure

FIGURE = Figure("score", "score", "one", "higher", -math.inf, math.inf, "here")


def speakers(count: int, clips: int) -> list[str]:
    return [f"speaker{index // clips}" for index in range(count * clips)]


def test_clips_of_one_speaker_count_once():
    """Ten copies of a clip say nothing new: the interval is that of one clip a speaker."""
    values = np.random.default_rng(0).normal(size=20)
    names = speakers(20, 1)
    once = interval(values, names, seed=3)
    copied = interval(np.repeat(values, 10), np.repeat(names, 10).tolist(), seed=3)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert (once.num_clips, copied.num_clips, copied.num_speakers) == (20, 200, 20)
    as_if_independent = interval(np.repeat(values, 10), speakers(200, 1), seed=3)
    assert as_if_independent.high - as_if_independent.low < (once.high - once.low) / 2


def test_the_interval_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    found = interval(values, speakers(400, 1), seed=0)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_the_median_lies_in_its_interval_and_ignores_outliers():
    values = np.append(np.arange(30.0), 1e9)
    found = interval(values, speakers(31, 1), average="median", seed=0)
    assert 0 < found.low < 15 < found.high < 30


def test_missing_values_are_left_out_and_one_speaker_has_no_interval():
    found = interval(np.array([1.0, np.nan, 2.0]), ["a", "b", "a"], seed=0)
    assert (found.num_clips, found.num_speakers) == (2, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_p_value_of_few_speakers_is_exact():
    """Of 2^n sign flips only all plus and all minus are as far from zero as equal signs."""
    differences = [np.array([1.0]), np.array([2.0, 0.5]), np.array([3.0]), np.array([4.0])]
    assert sign_flip_p(differences, seed=0) == 2 / 16
    assert sign_flip_p([np.array([0.0])] * 5, seed=0) == 1


def test_the_order_of_clips_does_not_matter():
    values = np.random.default_rng(2).normal(size=12)
    names = speakers(4, 3)
    order = np.random.default_rng(3).permutation(12)
    shuffled = paired_difference(
        values[order], np.zeros(12), [names[index] for index in order], seed=1
    )
    found = paired_difference(values, np.zeros(12), names, seed=1)
    assert shuffled.p_value == found.p_value
    assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high))


def test_methods_of_equal_quality_differ_as_often_as_the_level_says():
    generator = np.random.default_rng(4)
    names = speakers(10, 2)
    found = [
        sign_flip_p([*generator.normal(size=(10, 2)) + generator.normal(size=(10, 1))], seed=0)
        for _ in range(400)
    ]
    # 400 trials at 5 %: 20, standard deviation 4.4.
    assert 7 <= sum(p <= 0.05 for p in found) <= 33
    better = paired_difference(generator.normal(1, 0.5, size=20), np.zeros(20), names, seed=0)
    assert better.p_value < 0.01
    assert better.low > 0


def table(shift: float, clips: int = 6) -> ClipTable:
    made = ClipTable()
    for index in range(clips):
        made.add(f"{index}.mp4", f"speaker{index % 3}", {"score": index + shift})
    return made


def test_clips_are_read_back_as_written(tmp_path):
    written = table(1 / 3)
    written.add("last.mp4", "speaker0", {})
    write_clips(tmp_path / "clips.csv", {"pred": written}, [FIGURE])
    read = read_clips(tmp_path / "clips.csv")["pred"]
    assert (read.clips, read.speakers) == (written.clips, written.speakers)
    np.testing.assert_array_equal(read.column("score"), written.column("score"))
    assert math.isnan(read.column("score")[-1])


def test_a_difference_is_taken_over_the_clips_that_both_have():
    found = differences({"pred": table(0.5)}, {"pred": table(0, clips=4)}, [FIGURE], seed=0)
    assert found["pred"]["score"]["difference"] == pytest.approx(0.5)
    assert found["pred"]["score"]["num_clips"] == 4
    assert found["pred"]["score"]["p_value"] == 2 / 2**3
    with pytest.raises(ValueError, match="no figure of any clip in common"):
        differences({"pred": table(0)}, {"ref": table(0)}, [FIGURE], seed=0)
