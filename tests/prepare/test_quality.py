"""Measures of pictures: more blur is more, contrast is nothing, a still picture does not move."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from latentsync.prepare import AlignedSegment, MeasureQuality
from latentsync.prepare.quality import blur, motion
from latentsync.prepare.stage import Source

SIZE = 128


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Edges and spots, as in a face."""
    rng = np.random.default_rng(0)
    levels = np.full((SIZE, SIZE), 120, np.uint8)
    for _ in range(60):
        centre, radius = rng.integers(0, SIZE, 2).tolist(), int(rng.integers(2, 12))
        cv2.circle(levels, centre, radius, int(rng.integers(60, 180)), -1, cv2.LINE_AA)
    return np.repeat(levels[..., None], 3, axis=2)


def test_more_blur_is_more_and_smaller_contrast_is_the_same(picture):
    blurred = [blur([cv2.GaussianBlur(picture, None, sigma)]) for sigma in (0.5, 1, 2, 4)]
    assert all(
        before < after for before, after in zip([blur([picture]), *blurred], blurred, strict=False)
    )
    assert blur([picture]) < 0.3
    assert blurred[-1] > 0.8
    pale = (picture // 2 + 60).astype(np.uint8)
    assert blur([pale]) == pytest.approx(blur([picture]), abs=0.02)


def test_enlarging_a_small_face_blurs_it(picture):
    small = [
        cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for size in (96, 48, 24)
    ]
    large = [
        blur([cv2.resize(each, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)]) for each in small
    ]
    assert blur([picture]) < large[0] < large[1] < large[2]


def test_extremes_of_blur():
    assert blur([np.full((SIZE, SIZE, 3), 90, np.uint8)]) == 1
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 1), np.uint8).repeat(3, axis=2)
    assert blur([noise]) < 0.2


def test_motion_is_the_deviation_of_levels(picture):
    """Levels of 120 plus a sine of 20 have a deviation of 20 / sqrt(2); the mean of 5 of the 25
    frames of its period leaves .938 of it."""
    assert motion([picture] * 50) == 0
    levels = (120 + 20 * np.sin(2 * np.pi * np.arange(54) / 25)).round().astype(np.uint8)
    waving = [np.full((SIZE, SIZE, 3), level, np.uint8) for level in levels]
    assert motion(waving) == pytest.approx(0.938 * 20 / np.sqrt(2), abs=0.1)


def test_noise_of_a_camera_is_little_motion(picture):
    rng = np.random.default_rng(0)
    noisy = [
        (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8) for _ in range(50)
    ]
    assert motion(noisy) < 0.55  # the limit of conf/prepare


def measured(faces: list[np.ndarray], *, network: str | None = None, **before: float) -> dict:
    source = Source(Path("a"), "a", "a", Path())
    aligned = AlignedSegment(source, 0, 0, faces, np.zeros(len(faces)), torch.zeros(1), before)
    (made,) = MeasureQuality(network=network).run(aligned)
    return made.measures


def test_upscaling_needs_the_size_in_the_source(picture):
    assert measured([picture], face_px=32)["upscaling"] == 4
    assert measured([picture]).keys() == {"blur", "motion"}


def test_a_network_that_there_is_not_is_refused(picture):
    with pytest.raises(ValueError, match="quality=mine must be null or one of hyperiqa"):
        MeasureQuality(network="mine")
    try:
        import pyiqa  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ValueError, match=r"pip install pyiqa, or give prepare\.quality=null"):
            measured([picture], network="hyperiqa")
