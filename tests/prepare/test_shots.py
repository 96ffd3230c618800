"""No clip contains a cut: after it there may be a different person."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coded import POINTS
from latentsync.faces import FixedDetector
from latentsync.prepare.align import Align
from latentsync.prepare.cropping import OCCLUSION_EVERY, OCCLUSION_STEP, AlignedFace
from latentsync.prepare.following import Person
from latentsync.prepare.segment import Cut
from latentsync.prepare.stage import (
    AlignedSegment,
    Dropped,
    Resampled,
    Segment,
    Source,
    UnreadableError,
)

SAMPLES = 640  # of sound per frame


def picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (128, 128), interpolation=cv2.INTER_CUBIC)


def aligned(lengths: list[int], min_seconds: float) -> list[AlignedSegment | Dropped]:
    """What becomes of a recording from frame 100 on whose shots have these lengths."""
    cut = Cut(fps=25.0, min_seconds=min_seconds, cut_ratio=1.8)
    align = Align(
        make_detector=partial(FixedDetector, POINTS),
        aligner="smooth",
        resolution=64,
        fps=25.0,
        min_seconds=min_seconds,
        max_seconds=10.0,
    )
    frames = [picture(seed) for seed, length in enumerate(lengths) for _ in range(length)]
    sound = torch.arange(len(frames)).repeat_interleave(SAMPLES).float()
    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    recording = Resampled(source, len(frames), lambda: iter(frames), sound, start_frame=100)
    shots = (shot for shot in cut.run(recording) if isinstance(shot, Segment))
    return [made for shot in shots for made in align.run(shot)]


def test_each_shot_is_a_clip_with_its_own_sound_and_short_ones_are_listed() -> None:
    first, short, last = aligned([30, 20, 45], 1.0)
    assert isinstance(short, Dropped)
    assert (short.stage, short.reason) == ("segment", "a shot of 20 frames, 25 are needed")
    assert (short.start_seconds * 25, short.end_seconds * 25) == pytest.approx((130, 150))
    for made, start, length in ((first, 0, 30), (last, 50, 45)):
        assert isinstance(made, AlignedSegment)
        assert (made.start_frame, len(made.faces)) == (100 + start, length)
        assert made.waveform[0] == start
        assert len(made.waveform) == SAMPLES * length
        for face in made.faces:
            np.testing.assert_array_equal(face, made.faces[0])


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(250, [250]), (251, [125, 126]), (374, [187, 187]), (375, [250, 125]), (700, [250, 250, 200]),
     (1535, [250] * 5 + [142, 143])],
)  # fmt: skip
def test_a_long_shot_becomes_clips_of_five_to_ten_seconds(length: int, pieces: list[int]) -> None:
    made = aligned([length], 2.0)
    assert [len(clip.faces) for clip in made] == pieces
    assert [clip.start_frame for clip in made] == [
        100 + sum(pieces[:index]) for index in range(len(pieces))
    ]
    assert len({clip.name for clip in made}) == len(pieces)


def test_no_more_than_one_and_a_half_clips_of_frames_are_read_ahead() -> None:
    """However long a shot is; each frame is read once."""
    taken = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield picture(0)

    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    recording = Resampled(source, 2000, frames, torch.zeros(2000 * SAMPLES))
    align = Align(
        make_detector=partial(FixedDetector, POINTS), aligner="smooth", resolution=64, fps=25.0,
        min_seconds=2.0, max_seconds=10.0,
    )  # fmt: skip
    (shot,) = Cut(fps=25.0, min_seconds=2.0).run(recording)
    for number, clip in enumerate(align.run(shot), start=1):
        assert taken <= sum([250] * number) + 125 + 20 or clip.start_frame >= 1500
    assert taken == 2000


def test_a_piece_waits_until_it_is_known_what_hid_it() -> None:
    """A hand that is found later is followed back, also over a frame without a face."""
    face = AlignedFace(np.zeros((8, 8, 3), np.uint8), 0.0, 0.0, 8.0)
    taken = 0

    def faces() -> Iterator[AlignedFace | None]:
        nonlocal taken
        for shown in [face] * 60 + [None] + [face] * 100:
            taken += 1
            yield shown

    pieces = Person(None).pieces(faces(), min_frames=50, max_frames=250)
    first = next(pieces)
    assert (first.first, first.end) == (0, 60)
    # The interval of looks, which is as far as one goes back.
    assert 60 + OCCLUSION_STEP * OCCLUSION_EVERY <= taken < 160
    assert [(piece.first, piece.end) for piece in pieces] == [(61, 161)]


def test_what_is_read_before_a_file_breaks_off_is_kept_and_the_break_is_told() -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from [picture(0)] * 60
        raise UnreadableError("it broke off")

    source = Source(Path("a.mp4"), "a.mp4", "a", Path())
    recording = Resampled(source, 100, frames, torch.zeros(100 * SAMPLES))
    shots = Cut(fps=25.0, min_seconds=2.0, cut_ratio=1.8).run(recording)
    shot = next(shots)
    assert isinstance(shot, Segment)
    assert sum(1 for _ in shot.frames) == 60
    with pytest.raises(UnreadableError, match="it broke off"):
        next(shots)
