"""An offset planted between sound and picture of drawn clips is found by the demo's SyncNet."""

from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync import demo_model_dir
from latentsync.data.synthetic import render_clip
from latentsync.evaluation.sync_embeddings import sync_cosines
from latentsync.faces import MeshDetector, SmoothAligner, align, track
from latentsync.media.audio import read_waveform
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import read_frames
from latentsync.metrics.sync import score_of
from latentsync.models.serialization import load_network
from latentsync.models.syncnet import StableSyncNet
from latentsync.pipeline import to_pixels

SIDE, SAMPLES_PER_FRAME, FPS = 128, 640, 25.0
OFFSETS = range(-10, 11)


def aligned_faces(video: Path) -> np.ndarray:
    """As `evaluate.py` crops them: SyncNet is lost where faces lie by the drawn points instead."""
    aligner = SmoothAligner(SIDE)
    faces = track(read_frames(video), MeshDetector())
    placements = aligner.placements(aligner.points_of(face) for face in faces if face is not None)
    pairs = zip(read_frames(video), placements, strict=True)
    return np.stack([align(frame, place, SIDE) for frame, place in pairs if place is not None])


def led_by(waveform: torch.Tensor, num_frames: int) -> torch.Tensor:
    """The sound so many frames earlier, silent where there is none."""
    led = torch.zeros_like(waveform)
    step = abs(num_frames) * SAMPLES_PER_FRAME
    if num_frames > 0:
        led[: len(led) - step] = waveform[step:]
    else:
        led[step:] = waveform[: len(led) - step]
    return led


def found_offsets(video: Path, syncnet: StableSyncNet) -> list[int]:
    """Where the best shift is, of every planted offset."""
    pixels, waveform = to_pixels(aligned_faces(video)), read_waveform(video)
    found = []
    for planted in OFFSETS:
        mel = mel_spectrogram(led_by(waveform, planted))
        cosines = sync_cosines(syncnet, pixels, mel, fps=FPS, stride=8)
        found.append(score_of(cosines).offset)
    return found


@pytest.mark.slow
def test_a_planted_offset_is_found_within_a_frame(tmp_path: Path) -> None:
    syncnet = load_network(StableSyncNet, demo_model_dir() / "syncnet")
    errors = []
    for index in range(6):
        stem = tmp_path / f"speaker{index}"
        render_clip(stem, seed=930_000 + index, seconds=4.0, size=160)
        found = found_offsets(stem.with_suffix(".mp4"), syncnet)
        errors += [abs(one - other) for one, other in zip(found, OFFSETS, strict=True)]
    assert np.mean(np.array(errors) <= 1) >= 0.98
