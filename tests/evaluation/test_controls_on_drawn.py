"""On 40 drawn speakers every metric of sync is worse where the truth is spoiled, beyond doubt."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync import demo_model_dir
from latentsync.data.synthetic import read_truth, render_clip
from latentsync.evaluation.aggregate import figures_of
from latentsync.evaluation.clip_values import intervals, tables_of
from latentsync.evaluation.control_findings import findings
from latentsync.evaluation.control_rows import ControlRows, OtherVoice, Truth
from latentsync.evaluation.controls import COPIED, REVERSED, SHUFFLED, TRUTH
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.landmarks import by_landmarks, lips_of
from latentsync.faces import MeshDetector, SmoothAligner, align, track
from latentsync.faces.warp import transform
from latentsync.media.audio import read_waveform
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import read_frames
from latentsync.metrics.correlation import TRAITS, LandmarkCorrelation, TraitCorrelation
from latentsync.metrics.lips import LIPS, LandmarkDistance
from latentsync.metrics.sync import SyncFigures
from latentsync.models import MouthReader, StableSyncNet, load_network
from latentsync.models.model_config import ModelFormat

NUM_CLIPS, SIDE, SECONDS = 40, 128, 2.4


def truth_of(stem: Path, evaluator: Evaluator) -> Truth:
    """A drawn clip as `evaluate.py` looks at it."""
    video = stem.with_suffix(".mp4")
    aligner = SmoothAligner(SIDE)
    found = [face for face in track(read_frames(video), MeshDetector()) if face is not None]
    placements = list(aligner.placements(aligner.points_of(face) for face in found))
    pairs = zip(read_frames(video), placements, strict=True)
    faces = np.stack([align(frame, place, SIDE) for frame, place in pairs])
    points = np.stack(
        [
            transform(place.square_matrix(SIDE), face.points[list(LIPS)])
            for face, place in zip(found, placements, strict=True)
        ]
    )
    truth = read_truth(video)
    driving = torch.from_numpy(np.stack([truth[name] for name in TRAITS], axis=1)).float()
    lips = lips_of(found)
    sample = {"driving": driving[: len(faces)], "reading": evaluator.read(faces)}
    mel = mel_spectrogram(read_waveform(video))
    sample |= by_landmarks(lips, lips)
    where = torch.from_numpy(points).float()
    return Truth(stem.name, stem.name, sample, faces, where, evaluator.embed(faces, mel))


def truths(folder: Path, evaluator: Evaluator) -> Iterator[Truth]:
    for index in range(NUM_CLIPS):
        stem = folder / f"speaker{index}"
        render_clip(stem, seed=940_000 + index, seconds=SECONDS, size=160)
        yield truth_of(stem, evaluator)


@pytest.mark.slow
def test_the_truth_is_better_than_what_spoils_it_with_intervals_apart(tmp_path: Path) -> None:
    evaluator = Evaluator(
        ModelFormat(resolution=SIDE, aligner="smooth"),
        load_network(MouthReader, demo_model_dir() / "mouth_reader"),
        load_network(StableSyncNet, demo_model_dir() / "syncnet"),
        detector=None,
        sync_stride=8,
    )
    metrics = {
        "traits": TraitCorrelation(), "landmarks": LandmarkCorrelation(),
        "lmd": LandmarkDistance(), "sync": SyncFigures(),
    }  # fmt: skip
    controls = ControlRows(metrics, evaluator)
    before: Truth | None = None
    for truth in truths(tmp_path, evaluator):
        # The voice of the clip before last is another one than that of the last.
        other = None if before is None else OtherVoice(before.sample, before.heard.sound)
        controls.add(truth, other=other)
        before = truth if truth.clip.endswith(("0", "5")) else before
    controls.finish()
    figures = [each for each in figures_of(metrics) if each.sync is not None]
    spans = intervals(tables_of(controls.rows), figures, seed=0)
    found = findings(controls.rows, seed=0, not_run={})
    for figure in figures:
        true = spans[TRUTH][figure.key]
        for name in (COPIED, SHUFFLED, REVERSED):
            spoiled = spans[name][figure.key]
            apart = (
                spoiled["high"] < true["low"]
                if figure.better == "higher"
                else spoiled["low"] > true["high"]
            )
            assert apart, (figure.key, name, true, spoiled)
        assert not found["marks"][figure.key].startswith("broken"), figure.key
