"""Dead sound of real clips is dropped by the default limits, and talking is not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from latentsync.cli.command import conf_dir
from latentsync.cli.prepare import build_limits
from latentsync.media.audio import SAMPLE_RATE, read_waveform
from latentsync.prepare import AlignedSegment, Limit, MeasureSound
from latentsync.prepare.stage import Source

MIN_SECONDS = 2.0  # of a clip


@pytest.fixture(scope="module")
def limits() -> Mapping[str, Limit]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        every = build_limits(compose("prepare", ["input=raw", "output=set"]))
    return {measure: limit for measure, limit in every.items() if limit.stage == "sound"}


def beyond(waveform: torch.Tensor, limits: Mapping[str, Limit]) -> list[str]:
    source = Source(Path("a"), "a", "a", Path())
    aligned = AlignedSegment(source, 0, 0, [], np.zeros(0), waveform)
    (made,) = MeasureSound().run(aligned)
    return [name for name, limit in limits.items() if limit.passed(made.measures[name]) is not None]


def test_silent_recordings_are_beyond_the_limits(labels, clips, limits):
    silent = [name for name, label in labels.items() if label["silent_audio"]]
    assert len(silent) == 4
    for name in silent:
        waveform = read_waveform(clips[name])
        for piece in waveform.split(5 * SAMPLE_RATE):
            assert "loudest_db" in beyond(piece, limits), name


def test_everybody_who_talks_is_within_them(labels, clips, limits):
    spoken = 0
    for name, label in labels.items():
        spans = [each["span"] for each in label["speaking_spans"] if not each.get("doubtful")]
        if not label["has_audio"] or not spans:
            continue
        waveform = read_waveform(clips[name])
        for first, last in spans:
            start, end = (round(frame / label["fps"] * SAMPLE_RATE) for frame in (first, last + 1))
            if end - start >= MIN_SECONDS * SAMPLE_RATE:
                assert beyond(waveform[start:end], limits) == [], name
                spoken += 1
    assert spoken > 25
