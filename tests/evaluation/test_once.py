"""A pair is looked at once: pictures, landmarks and sounds serve every metric and control."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync import demo_model_dir
from latentsync.evaluation import folders
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.folders import Comparison
from latentsync.evaluation.pairs import Pair
from latentsync.faces import Face, MeshDetector
from latentsync.media.video import probe, read_frames
from latentsync.metrics.correlation import TraitCorrelation
from latentsync.metrics.lips import LandmarkDistance
from latentsync.metrics.sync import SyncFigures
from latentsync.models import MouthReader, StableSyncNet, load_network
from latentsync.models.model_config import ModelFormat


class Counted(MeshDetector):
    """A detector that counts the frames it follows a face in."""

    followed = 0

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        self.followed += 1
        return super().refine(frame, face)


def test_every_video_is_decoded_and_every_sound_embedded_once(
    talking_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "result.mp4"
    shutil.copy(talking_clip, result)
    decoded: Counter[Path] = Counter()

    def counted(path: Path, **options: object) -> Iterator[np.ndarray]:
        decoded[path] += 1
        return read_frames(path, **options)

    monkeypatch.setattr(folders, "read_frames", counted)
    syncnet = load_network(StableSyncNet, demo_model_dir() / "syncnet")
    sounds: list[int] = []
    embed = syncnet.embed_mel
    monkeypatch.setattr(syncnet, "embed_mel", lambda mel: sounds.append(len(mel)) or embed(mel))
    detector = Counted()
    evaluator = Evaluator(
        ModelFormat(resolution=64, aligner="smooth"),
        load_network(MouthReader, demo_model_dir() / "mouth_reader"),
        *(syncnet, detector),
    )
    metrics = {
        "traits": TraitCorrelation(), "lmd": LandmarkDistance(), "sync": SyncFigures(),
    }  # fmt: skip
    comparison = Comparison(metrics, evaluator)
    pair = Pair(result, talking_clip)
    comparison.add(folders.compare_pair(pair, evaluator=evaluator, max_frames=60))
    num_frames = min(probe(talking_clip).num_frames, 60)
    assert decoded == {result: 1, talking_clip: 1}
    # One more look at each first frame settles the mesh there.
    assert detector.followed == 2 * num_frames
    # Both sounds are the same one, for the result, the truth and all its controls.
    assert sum(sounds) == num_frames - syncnet.config.num_frames + 1
    rows = comparison.rows
    assert rows["pred"].summary()["lmd"] == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(rows["pred"].curve(), rows["ref"].curve())
