"""No clip contains a cut: after it there may be a different person."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coded import POINTS
from latentsync.faces import FixedDetector
from latentsync.prepare.align import Align
from latentsync.prepare.stage import AlignedSegment, Dropped, Segment, Source

SAMPLES = 640  # of sound per frame


def picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (128, 128), interpolation=cv2.INTER_CUBIC)


def aligned(lengths: list[int], min_seconds: float) -> list[AlignedSegment | Dropped]:
    """What becomes of a segment from frame 100 on whose shots have these lengths."""
    stage = Align(
        make_detector=partial(FixedDetector, POINTS),
        aligner="smooth",
        resolution=64,
        fps=25.0,
        min_seconds=min_seconds,
    )
    frames = [picture(seed) for seed, length in enumerate(lengths) for _ in range(length)]
    sound = torch.arange(len(frames)).repeat_interleave(SAMPLES).float()
    segment = Segment(Source(Path("a.mp4"), "a.mp4", "a", Path()), 0, 100, iter(frames), sound)
    return list(stage.run(segment))


@pytest.mark.parametrize(
    ("lengths", "first", "seed"), [([60, 40], 0, 0), ([30, 45, 25], 30, 1), ([20, 20, 50], 40, 2)]
)
def test_a_clip_is_the_longest_shot(lengths: list[int], first: int, seed: int) -> None:
    *rest, made = aligned(lengths, 1.0)
    assert isinstance(made, AlignedSegment)
    parts = [round((part.end_seconds - part.start_seconds) * 25) for part in rest]
    end = first + lengths[seed]
    assert parts == [length for length in (first, sum(lengths) - end) if length]
    assert (made.start_frame, len(made.faces)) == (100 + first, lengths[seed])
    assert made.waveform[0] == first
    assert len(made.waveform) == SAMPLES * lengths[seed]
    for face in made.faces:
        np.testing.assert_array_equal(face, made.faces[0])


def test_shots_that_are_all_too_short_say_so() -> None:
    (made,) = aligned([30, 30, 30], 2.0)
    assert isinstance(made, Dropped)
    assert made.reason == "the longest shot of 90 frames has 30, 50 are needed"
