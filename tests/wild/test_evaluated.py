"""Real clips against themselves: nothing says that they are out of sync."""

from pathlib import Path

import pytest

from latentsync import demo_model_dir
from latentsync.evaluation.aggregate import figures_of
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.folders import Comparison, compare_pair
from latentsync.evaluation.pairs import Pair
from latentsync.faces import MeshDetector
from latentsync.metrics.artefacts import Jitter
from latentsync.metrics.correlation import LandmarkCorrelation
from latentsync.metrics.lips import LandmarkDistance
from latentsync.metrics.sync import NOT_VALID, SyncFigures
from latentsync.models import MouthReader, StableSyncNet, load_network
from latentsync.models.model_config import ModelFormat

NUM_CLIPS, MAX_FRAMES = 8, 60
# What a figure of sync is of a clip against itself, if it is valid.
BEST = {"higher": 1.0, "lower": 0.0, "0": 0.0}


@pytest.mark.slow
def test_no_metric_says_out_of_sync_unless_it_is_not_valid(clips: dict[str, Path]) -> None:
    evaluator = Evaluator(
        ModelFormat(resolution=128, aligner="smooth"),
        load_network(MouthReader, demo_model_dir() / "mouth_reader"),
        load_network(StableSyncNet, demo_model_dir() / "syncnet"),
        MeshDetector(),
    )
    metrics = {
        "landmarks": LandmarkCorrelation(), "lmd": LandmarkDistance(), "jitter": Jitter(),
        "sync": SyncFigures(),
    }  # fmt: skip
    comparison = Comparison(metrics, evaluator)
    for name in sorted(clips):
        if comparison.num_measured == NUM_CLIPS:
            break
        try:
            pair = compare_pair(
                Pair(clips[name], clips[name]), evaluator=evaluator, max_frames=MAX_FRAMES
            )
        except ValueError:  # no face in these frames
            continue
        comparison.add(pair)
    assert comparison.num_measured == NUM_CLIPS
    comparison.finish(trained_on=evaluator.trained_on)
    row = comparison.rows["pred"].summary()
    seen = {figure.key for figure in figures_of(metrics) if figure.key in row}
    assert {"r_open_mesh", "lmd", "sync", "offset_near"} <= seen
    for figure in figures_of(metrics):
        if figure.sync is None or figure.key == "sync_confidence":
            continue
        value = row[figure.key]
        assert value == NOT_VALID or value == pytest.approx(BEST[figure.better], abs=0.05), (
            figure.key,
            value,
        )
