"""Defects introduced into synthetic clips are detected."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentsync.data import Clip
from latentsync.data.diagnostics import (
    Fit,
    Heard,
    fit_of,
    lead_curve,
    measure_health,
    offset_of,
    pool,
)


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_a_known_shift_is_found(late: int, rng: np.random.Generator):
    sound = rng.random((120, 5))
    motion = np.roll(sound, -late, axis=0) @ rng.random((5, 3)) + 0.3 * rng.random((120, 3))
    foreign = lead_curve(motion, rng.random((120, 5)))
    assert offset_of(lead_curve(motion, sound), [foreign]) == late


def test_curves_that_have_nothing_in_common_have_no_offset(rng: np.random.Generator):
    motion = rng.random((400, 3))
    own, *others = (lead_curve(motion, rng.random((400, 5))) for _ in range(7))
    assert offset_of(own, others) is None
    still = lead_curve(motion[:100], np.zeros((100, 5)))
    assert offset_of(still, [still]) is None
    assert lead_curve(motion[:30], rng.random((30, 5))) is None  # too short to shift


@pytest.mark.parametrize("late", [0, 5])
def test_late_sound_of_drawn_speakers_is_found(speaking: list[Clip], tmp_path: Path, late: int):
    health = measure_health([delayed(clip, late, tmp_path) for clip in speaking])
    assert health.together > 1.2
    assert abs(health.common_offset - late) <= 1
    assert health.num_with_offset >= 2
    assert all(abs(offset - late) <= 1 for offset in health.offsets)
    assert health.silent == health.same_sound == health.same_pictures == []


def test_mouths_do_not_go_with_the_sound_of_other_speakers(speaking: list[Clip]):
    exchanged = [
        replace(clip, features_path=other.features_path)
        for clip, other in zip(speaking, [*speaking[3:], *speaking[:3]], strict=True)
    ]
    assert measure_health(exchanged).together < 1.2


def test_clips_count_by_their_length():
    """A low peak of 300 frames counts more than a high one of 100."""
    short, long, flat = np.zeros((3, 25))
    short[12 + 5], long[12 + 0], flat[3] = 1.0, 0.5, 0.1
    fits = [Fit(short, [flat], 100), Fit(long, [flat], 300)]
    assert pool(fits) == (0, pytest.approx(0.375 / 0.1))


def test_one_sound_that_goes_with_all_is_not_compared_with_all_at_once(rng: np.random.Generator):
    """A beat that everybody moves to, in one clip's sound, weighs as one sound of 24."""
    beat = rng.random((200, 1))
    heard = []
    for number in range(24):
        voice = rng.random((200, 4))
        motion = np.concatenate([voice[:, :2] + 3 * rng.random((200, 2)), beat], axis=1)
        heard.append(Heard(str(number), motion, np.repeat(beat, 4, 1) if number == 4 else voice))
    fits = [fit_of(number, heard) for number in range(24)]
    _, together = pool([fit for fit in fits if fit is not None])
    assert together > 1.2


def test_few_clips_have_no_offsets_of_their_own(speaking: list[Clip], tmp_path: Path):
    health = measure_health([delayed(clip, 5, tmp_path) for clip in speaking[:3]])
    assert abs(health.common_offset - 5) <= 1
    assert health.offsets == {}


def test_silence_and_duplicates_are_named(speaking: list[Clip], tmp_path: Path):
    silent = delayed(speaking[0], 0, tmp_path)
    features = load_file(silent.features_path)
    save_file({**features, "mel": torch.full_like(features["mel"], -4)}, silent.features_path)
    health = measure_health([silent, speaking[1], speaking[1]])
    name = speaking[1].name
    assert health.silent == [silent.name]
    assert health.same_sound == health.same_pictures == [[name, name]]


def delayed(clip: Clip, late: int, folder: Path) -> Clip:
    """The clip with its sound delayed by `late` frames."""
    features = load_file(clip.features_path)
    path = folder / f"{clip.name}.safetensors"
    columns = round(late * 80 / clip.fps)
    save_file({**features, "mel": features["mel"].roll(columns, dims=1).contiguous()}, path)
    return replace(clip, features_path=path)


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Eight synthetic speakers of 8 s, prepared at 64 px."""
    from latentsync.data import read_manifest
    from latentsync.data.synthetic import render_clip
    from latentsync.faces import FixedDetector
    from latentsync.prepare import Recipe, prepare_clips

    folder = tmp_path_factory.mktemp("speaking")
    (folder / "raw").mkdir()
    for seed in range(1, 9):
        render_clip(folder / "raw" / str(seed), seed=seed, seconds=8.0, size=128)

    def make_detector() -> FixedDetector:
        return FixedDetector([[48.0, 48.0], [80.0, 48.0], [64.0, 64.0]])

    prepare_clips(
        folder / "raw",
        folder / "set",
        stages=Recipe(make_detector=make_detector, resolution=64, occlusion=None).stages(),
    )
    return read_manifest(folder / "set")
