"""Real clips against themselves: nothing says that they are out of sync, or of another person."""

from pathlib import Path

import pytest
import torch

from latentsync import demo_model_dir
from latentsync.evaluation.aggregate import figures_of
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.folders import Comparison, compare_pair
from latentsync.evaluation.identity import Identities
from latentsync.evaluation.pairs import Pair
from latentsync.faces import MeshDetector, track
from latentsync.faces.detectors.yunet import default_detector
from latentsync.faces.tracking.identity import SFace
from latentsync.media.video import read_frames
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


# One person each, five people.
PEOPLE = ("dx_nvyou.mp4", "lp_s29.mp4", "luoyebai.mp4", "st_aoc.mp4", "tk_obama.mp4")
SAME_PERSON = 0.363  # cosine of two pictures of one person or more, as SFace's authors say


@pytest.mark.slow
def test_csim_by_sface_knows_the_people_of_real_clips(clips: dict[str, Path]) -> None:
    detector = default_detector()
    if not isinstance(detector.identity, SFace):
        pytest.skip("SFace is not fetched: python -m latentsync.faces.fetch")
    people = []
    for name in PEOPLE:
        frames = list(read_frames(clips[name], fps=25, num_frames=MAX_FRAMES))
        identities = Identities(detector.identity)
        for frame, face in zip(frames, track(frames, detector), strict=True):
            if face is not None:
                identities.look(frame, frame, face)
        people.append(identities)
    for index, person in enumerate(people):
        samples = person.samples()
        torch.testing.assert_close(
            samples["pred"]["identity"], torch.ones(len(person.pred), dtype=torch.float64)
        )
        assert samples["ref"]["identity"].mean() > SAME_PERSON, PEOPLE[index]
        for other in (each for each in people if each is not person):
            assert person.against(other)["other_identity"].mean() < SAME_PERSON
