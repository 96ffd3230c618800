"""Offsets between picture and sound: found by the demo's SyncNet, and corrected by moving cuts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentsync.metrics.sync import SyncScore
from latentsync.prepare import AlignedSegment, Dropped, MeasureSync, Recipe
from latentsync.prepare.stage import Source
from latentsync.prepare.sync import shifted

NUM_FRAMES = 60
SYNCNET = Path(__file__).parents[2] / "experiments" / "demo" / "model" / "syncnet"


def stage_with(score: SyncScore | None) -> MeasureSync:
    stage = MeasureSync(fps=25.0)
    stage.__dict__["scorer"] = lambda faces, waveform: score
    return stage


@pytest.mark.parametrize("offset", [-6, -1, 1, 6])
def test_a_corrected_clip_has_the_sound_that_belongs_to_its_picture(numbered, offset) -> None:
    dropped, clip = stage_with(SyncScore(0.1, offset, 0.6, 0.5)).run(numbered)
    pictures = np.array([face[0, 0, 0] for face in clip.faces], float)
    sounds = clip.waveform.view(-1, 640)
    assert (sounds == sounds[:, :1]).all()
    # What was heard `offset` frames early is heard with its picture.
    assert (sounds[:, 0].numpy() == pictures - offset).all()
    assert (clip.turns == pictures).all()
    assert len(pictures) == NUM_FRAMES - abs(offset)
    assert clip.start_frame == 100 + pictures[0]
    assert clip.measures == {"sync_offset": offset, "sync_confidence": 0.6}
    assert isinstance(dropped, Dropped)
    lost = set(range(100, 100 + NUM_FRAMES)) - {100 + int(each) for each in pictures}
    assert dropped.start_seconds == pytest.approx(min(lost) / 25)
    assert dropped.end_seconds == pytest.approx((max(lost) + 1) / 25)


@pytest.mark.parametrize(
    ("score", "measures"),
    [
        (SyncScore(0.9, 0, 0.6, 0.9), {"sync_offset": 0, "sync_confidence": 0.6}),
        (SyncScore(0.1, 9, 0.6, 0.5), {"sync_offset": 9, "sync_confidence": 0.6}),
        (SyncScore(0.1, 3, 0.1, 0.5), {"sync_offset": None, "sync_confidence": 0.1}),
        (None, {"sync_offset": None, "sync_confidence": None}),
    ],
)
def test_what_is_in_sync_too_far_off_or_uncertain_is_left_as_it_is(
    numbered, score, measures
) -> None:
    (clip,) = stage_with(score).run(numbered)
    assert clip.measures == measures
    assert replace(clip, measures={}) == numbered


def test_without_a_syncnet_nothing_is_judged(numbered) -> None:
    (clip,) = MeasureSync(fps=25.0).run(numbered)
    assert clip.measures == {"sync_offset": None, "sync_confidence": None}


@pytest.mark.skipif(not SYNCNET.is_dir(), reason="the demo's SyncNet is not here")
def test_planted_offsets_of_a_synthetic_speaker_are_found(talking_clip, tmp_path) -> None:
    probe, resample, cut, align = Recipe(resolution=128).stages()[:4]
    (recording,) = probe.run(Source(talking_clip, talking_clip.name, "talking", tmp_path))
    resampled = next(resample.run(recording))
    whole = next(made for segment in cut.run(resampled) for made in align.run(segment))
    assert isinstance(whole, AlignedSegment)
    stage = MeasureSync(syncnet=SYNCNET, fps=25.0, max_corrected=0)
    for offset in (-8, -3, 0, 5):
        # Undoing an offset that is not there plants its opposite.
        (clip,) = stage.run(shifted(whole, -offset, fps=25.0))
        assert clip.measures["sync_offset"] == pytest.approx(offset, abs=1)
