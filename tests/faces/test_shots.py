from collections.abc import Iterable, Iterator
from itertools import islice

import cv2
import numpy as np
import pytest

from latentsync.data.synthetic import Speaker
from latentsync.data.synthetic.render import Portrait, at, head_motion
from latentsync.faces.tracking.shots import shots_of

SHOT = 8


def shot(seed: int, length: int = SHOT, size: int = 160) -> list[np.ndarray]:
    """A synthetic person who moves and speaks."""
    rng = np.random.default_rng(seed)
    portrait = Portrait(Speaker.random(rng), size)
    motion = head_motion(length, 25.0, rng)
    shapes = {"width": 0.5, "round": 0.2, "teeth": 0.3, "tongue": 0.2}
    return [
        portrait.frame({**shapes, "open": abs(np.sin(index))}, at(motion, index))
        for index in range(length)
    ]


def firsts(frames: Iterable[np.ndarray]) -> list[int]:
    lengths = [len(list(shot)) for shot in shots_of(iter(frames))]
    return [sum(lengths[:index]) for index in range(len(lengths))]


@pytest.mark.parametrize("brightness", [1.0, 0.25])
def test_every_cut_between_drawn_people_is_seen_and_no_other(brightness: float) -> None:
    frames = [frame for seed in range(6) for frame in shot(seed)]
    frames = [(frame * brightness).astype(np.uint8) for frame in frames]
    assert firsts(frames) == [SHOT * index for index in range(6)]


def test_a_change_of_zoom_is_a_cut() -> None:
    wide = shot(3)
    close = [cv2.resize(frame[40:120, 40:120], (160, 160)) for frame in wide]
    assert firsts([*wide, *close]) == [0, SHOT]


def test_fades_and_noise_are_no_cuts() -> None:
    frames = shot(1, 24)
    fade = [(frame * (1 - index / 40)).astype(np.uint8) for index, frame in enumerate(frames)]
    assert firsts(fade) == [0]
    rng = np.random.default_rng(0)
    dark = [(rng.normal(8, 6, (160, 160, 3))).clip(0, 255).astype(np.uint8) for _ in range(20)]
    assert firsts(dark) == [0]


def test_a_fast_pan_is_not_cut_forever() -> None:
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 256, (16, 160, 3), dtype=np.uint8), (1600, 160))
    pan = [wide[:, 24 * index : 24 * index + 160] for index in range(50)]
    assert np.abs(pan[1].astype(int) - pan[0]).mean() > 30
    assert all(first < 4 for first in firsts(pan))


def test_black_and_another_size_part_shots() -> None:
    black = [np.zeros((160, 160, 3), dtype=np.uint8)] * 5
    small = [np.zeros((16, 16, 3), dtype=np.uint8)] * 3
    assert firsts([*shot(2), *black, *shot(4), *small]) == [0, 8, 13, 21]


def test_a_flash_is_no_cut() -> None:
    frames = shot(1, 24)
    for first, end in ((5, 6), (14, 16)):
        for number in range(first, end):
            frames[number] = (255 - (255 - frames[number]) // 5).astype(np.uint8)
    assert firsts(frames) == [0]


@pytest.mark.parametrize("times_shown", [[1, 1, 1, 1, 2], [2], [3]])
def test_repeated_frames_hide_no_cut_and_make_none(times_shown: list[int]) -> None:
    """25 frames per second shown as 30, and animation on twos and threes."""
    frames = [*shot(1, 12), *shot(2, 12)]
    times = [times_shown[index % len(times_shown)] for index in range(24)]
    shown = [frame for frame, count in zip(frames, times, strict=True) for _ in range(count)]
    assert firsts(shown) == [0, sum(times[:12])]


def test_a_blend_or_one_frame_from_elsewhere_is_the_end_of_the_shot_before() -> None:
    before, after = shot(1), shot(2)
    blend = ((before[-1].astype(int) + after[0]) // 2).astype(np.uint8)
    elsewhere = shot(5, 1)[0]
    assert firsts([*before, *after]) == [0, 8]
    assert firsts([*before, blend, *after]) == [0, 9]
    assert firsts([*before, elsewhere, *after]) == [0, 9]
    assert firsts([*before, np.zeros_like(blend), *after]) == [0, 9]


def test_no_shot_is_shorter_than_three_frames() -> None:
    for length in (1, 2, 6, 7):
        assert firsts([*shot(1, length), *shot(2, 8 - length)]) == [0]
    assert firsts([*shot(1, 3), *shot(2, 3)]) == [0, 3]
    assert firsts([*shot(1, 5), *shot(2, 4), *shot(3, 4), *shot(4, 5)]) == [0, 5, 9, 13]


def test_every_frame_comes_out_once_and_in_order_three_frames_late() -> None:
    frames = [np.full((40, 40, 3), number, np.uint8) for number in range(20)]
    num_read = 0

    def read() -> Iterator[np.ndarray]:
        nonlocal num_read
        for frame in frames:
            num_read += 1
            yield frame

    given = 0
    for part in shots_of(read()):
        for frame in part:
            assert frame is frames[given]
            given += 1
            assert num_read <= given + 3
    assert given == 20
    assert list(shots_of(iter([]))) == []


def test_no_cut_in_real_clips(real_frames: Iterator[np.ndarray]) -> None:
    assert firsts(islice(real_frames, 40)) == [0]
