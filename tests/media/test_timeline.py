from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from latentsync.media.frame_reader import read_times
from latentsync.media.timeline import FrameTimes, Timeline, build_timeline
from latentsync.media.writer import VideoWriter
from media.sources import SIZE, filter_fps, shades

MILLISECONDS = Fraction(1, 1000)


def steady(num_frames: int, milliseconds: int = 40) -> FrameTimes:
    starts = np.arange(num_frames, dtype=np.int64) * milliseconds
    return FrameTimes(MILLISECONDS, starts, num_frames * milliseconds)


def stays(timeline: Timeline) -> list[int]:
    return np.diff(timeline.starts, append=timeline.end).tolist()


UNEVEN = FrameTimes(MILLISECONDS, np.array([0, 10, 40, 90]), 110)


def rounded(fps: Fraction, length: int, *, late: int = 0) -> FrameTimes:
    """A steady rate on a clock of milliseconds; one frame is late by some ticks."""
    ticks = [round(1000 * index / fps) for index in range(length + 1)]
    ticks[length // 2] += late
    return FrameTimes(MILLISECONDS, np.array(ticks[:-1]), ticks[-1])


@pytest.mark.parametrize("fps", [24, 30, 60, Fraction(30000, 1001), Fraction(24000, 1001)])
@pytest.mark.parametrize("loop", ["to_and_fro", "repeat", "hold"])
def test_a_rate_that_the_clock_is_too_coarse_for_is_kept(fps: Fraction, loop: str) -> None:
    fps = Fraction(fps)
    times = rounded(fps, 29)
    timeline = build_timeline(times, seconds=2.0, loop=loop, source_fps=fps)
    assert len(timeline) / timeline.start(len(timeline)) == fps
    assert timeline.seconds(len(timeline)) == pytest.approx(2.0, abs=0.51 / fps)


@pytest.mark.parametrize(("late", "fps"), [(2, 24), (-3, 24), (0, 25), (0, 23)])
def test_times_that_are_meant_stay_as_they_are(late: int, fps: int) -> None:
    """An uneven frame; a rate that the clock can represent; a header with another rate."""
    times = rounded(Fraction(25 if fps == 25 else 24), 29, late=late)
    timeline = build_timeline(times, seconds=1.0, source_fps=Fraction(fps))
    np.testing.assert_array_equal(timeline.starts, times.starts)
    assert timeline.time_base == MILLISECONDS


@pytest.mark.parametrize(
    ("loop", "numbers"),
    [
        ("to_and_fro", [0, 1, 2, 2, 1, 0, 0, 1]),
        ("repeat", [0, 1, 2, 0, 1, 2, 0, 1]),
        ("hold", [0, 1, 2, 2, 2, 2, 2, 2]),
        ("stop", [0, 1, 2]),
    ],
)
def test_a_video_shorter_than_the_sound(loop: str, numbers: list[int]) -> None:
    timeline = build_timeline(steady(3), seconds=0.32, loop=loop)
    assert timeline.numbers.tolist() == numbers
    assert timeline.starts.tolist() == [40 * i for i in range(len(numbers))]
    assert timeline.seconds(len(timeline)) == pytest.approx(0.04 * len(numbers))


def test_played_backwards_each_frame_stays_as_long_as_forwards() -> None:
    timeline = build_timeline(UNEVEN, seconds=0.33)
    assert timeline.numbers.tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3]
    assert stays(timeline) == [10, 30, 50, 20, 20, 50, 30, 10, 10, 30, 50, 20]


@pytest.mark.parametrize(("tail", "length"), [("keep", 10), ("cut", 4)])
def test_a_video_longer_than_the_sound(tail: str, length: int) -> None:
    timeline = build_timeline(steady(10), seconds=0.16, tail=tail)
    assert timeline.numbers.tolist() == list(range(length))
    assert timeline.end == 40 * length


@pytest.mark.parametrize("loop", ["to_and_fro", "repeat", "hold"])
@pytest.mark.parametrize("seconds", [0.001, 0.07, 0.101, 0.5, 1.23, 3600])
@pytest.mark.parametrize("fps", [None, Fraction(25), Fraction(30000, 1001)])
def test_the_output_ends_with_the_sound_to_half_a_frame(
    loop: str, seconds: float, fps: Fraction | None
) -> None:
    for times in (steady(7, 33), UNEVEN):
        timeline = build_timeline(times, seconds=seconds, loop=loop, tail="cut", fps=fps)
        error = abs(timeline.seconds(len(timeline)) - seconds)
        longest = max(stays(timeline)) * timeline.time_base
        assert error <= longest / 2 + 0.001 or len(timeline) == 1
        assert timeline.numbers.max() < len(times)


def test_no_frame_is_left_out_and_none_moves_without_a_rate() -> None:
    timeline = build_timeline(UNEVEN, seconds=0.02)
    assert timeline.numbers.tolist() == [0, 1, 2, 3]
    assert timeline.starts.tolist() == UNEVEN.starts.tolist()
    assert timeline.end == UNEVEN.end


@pytest.mark.parametrize(("rate", "fps"), [(24, 25), (30, 25), (60, 25), (15, 25), (25, 30)])
def test_the_grid_is_the_one_of_libavs_fps_filter(tmp_path, rate: int, fps: int) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=rate, width=SIZE, height=SIZE) as writer:
        for frame in shades(60):
            writer.write(frame)
    timeline = build_timeline(read_times(path), seconds=0.1, fps=Fraction(fps))
    assert timeline.numbers.tolist() == filter_fps(path, fps)
    assert timeline.starts.tolist() == list(range(len(timeline)))
    assert timeline.time_base == Fraction(1, fps)


def test_a_frame_that_stays_long_comes_again_for_its_mouth_to_move() -> None:
    """As in slide shows, or where a damaged file holds its last good picture."""
    times = FrameTimes(MILLISECONDS, np.array([0, 40, 1050]), 1090)
    timeline = build_timeline(times, seconds=0.5)
    assert timeline.numbers.tolist() == [0, *[1] * 26, 2]
    assert max(stays(timeline)) == 40
    assert timeline.starts[timeline.numbers == 2].tolist() == [1050]
    assert timeline.end == 1090


def test_three_hours() -> None:
    timeline = build_timeline(steady(50, 20), seconds=3 * 3600)
    assert len(timeline) == 3 * 3600 * 50
    assert all(abs(a - b) <= 1 for a, b in pairwise(timeline.numbers[:500].tolist()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "more than 0 s, got 0"),
        ({"seconds": 1, "loop": "twice"}, "loop must be one of to_and_fro, .*'twice'"),
        ({"seconds": 1, "tail": "on"}, "tail must be one of keep, cut, got 'on'"),
        ({"seconds": 1, "fps": Fraction(0)}, "above 0, got 0"),
    ],
)
def test_wrong_choices(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_timeline(steady(3), **options)


@pytest.mark.parametrize(("starts", "end"), [([], 1), ([1, 2], 3), ([0, 2, 2], 3), ([0, 2], 2)])
def test_times_rise(starts: list[int], end: int) -> None:
    with pytest.raises(ValueError, match="rise strictly"):
        FrameTimes(MILLISECONDS, np.array(starts, np.int64), end)


@pytest.mark.parametrize(
    ("starts", "end", "base", "fps", "said"),
    [
        # 20 frames of a microsecond; frames of 2 ms are accepted, see below.
        (range(20), 20, Fraction(1, 1_000_000), None, "20 pictures in 2e-05 s: the most are 1000"),
        (range(20), 20, Fraction(1, 1001), None, "20 pictures in 0.02 s: the most are 1000"),
        (range(20), 20, Fraction(1, 25), Fraction(90_000), "90,000 frames a second"),
        ([0, 1, 2000 * 3600 * 25], 2000 * 3600 * 25 + 1, Fraction(1, 25), None, "frame 1 of the"),
        ([0, 1, 3601 * 25], 3601 * 25 + 1, Fraction(1, 25), Fraction(25), "frame 1 of the video"),
        ([0], 2**40, Fraction(1, 1000), None, "frame 0 of the video is shown for 1,099,511,628 s"),
    ],
)
def test_times_that_nobody_meant_are_refused_before_they_cost(
    starts: range | list[int], end: int, base: Fraction, fps: Fraction | None, said: str
) -> None:
    times = FrameTimes(base, np.array(starts, np.int64), end)
    with pytest.raises(ValueError, match=said):
        build_timeline(times, seconds=1.0, fps=fps)


@pytest.mark.parametrize("base", [Fraction(1, 1000), Fraction(100), Fraction(1, 25)])
def test_high_speed_and_slides_are_drawn(base: Fraction) -> None:
    times = FrameTimes(base, np.arange(20, dtype=np.int64), 20)
    assert len(build_timeline(times, seconds=0.01)) >= 20
