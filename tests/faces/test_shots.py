from collections.abc import Iterable, Iterator
from itertools import islice

import cv2
import numpy as np
import pytest

from latentsync.data.synthetic import Speaker
from latentsync.data.synthetic.render import Portrait, at, head_motion
from latentsync.faces.tracking.shots import ShotDetector

SHOT = 8


def shot(seed: int, length: int = SHOT, size: int = 160) -> list[np.ndarray]:
    """A drawn person who moves and speaks."""
    rng = np.random.default_rng(seed)
    portrait = Portrait(Speaker.random(rng), size)
    motion = head_motion(length, 25.0, rng)
    shapes = {"width": 0.5, "round": 0.2, "teeth": 0.3, "tongue": 0.2}
    return [
        portrait.frame({**shapes, "open": abs(np.sin(index))}, at(motion, index))
        for index in range(length)
    ]


def firsts(frames: Iterable[np.ndarray]) -> list[int]:
    cuts = ShotDetector()
    return [number for number, frame in enumerate(frames) if cuts(frame)]


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


def test_no_cut_in_real_clips(real_frames: Iterator[np.ndarray]) -> None:
    assert firsts(islice(real_frames, 40)) == [0]
