"""Real clips: who is found, who is who, whose head is turned; by the default detector."""

from collections import Counter
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from wild_figures import Look, yaw_figures
from wild_scores import Seen, identities

from latentsync.faces import YuNetDetector, default_detector, three_points
from latentsync.faces.detectors.model_files import MESH, OPENCV_ZOO, default_cache
from latentsync.faces.tracking.survey import Survey, survey
from latentsync.media.frame_reader import FrameTimes, stored_frames

# Several tracks of one or more people each: cuts, turns, two side by side.
TURNED = ["fr_hamilton.mp4", "kb_avenger2.mp4", "kb_bill2.mp4"]
CLIPS = ["ap_lyl.mp4", "kb_avenger2.mp4", "kb_bill2.mp4", "lp_d12.mp4", "lp_d20.mp4", "cs_HQ1.mp4"]


@pytest.fixture(scope="session")
def detector() -> YuNetDetector:
    names = (*MESH.checksums, *OPENCV_ZOO.checksums)
    if not all((default_cache() / name).is_file() for name in names):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    found = default_detector()
    assert isinstance(found, YuNetDetector)
    return found


@lru_cache(maxsize=8)
def seen_in(path: Path, detector: YuNetDetector) -> Survey:
    frames = (frame for _, _, frame in stored_frames(path, quick=True))
    return survey(frames, detector, three_points)


def tracks_of(found: Survey) -> list[Seen]:
    return [
        Seen(
            track.person,
            next(n for n, shot in enumerate(found.shots) if shot.first <= track.first < shot.end),
            track.first,
            track.end,
        )
        for track in found.tracks
    ]


@pytest.mark.slow
def test_persons_are_told_apart_over_cuts(
    clips: dict[str, Path], labels: dict[str, dict], detector: YuNetDetector
) -> None:
    scores = {
        name: identities(tracks_of(seen_in(clips[name], detector)), labels[name]["people"])
        for name in CLIPS
    }
    assert sum(score["right"] for score in scores.values()) >= 0.9 * len(scores) - 0.5, scores
    wrong = sum(score["merged_pairs"] + score["split_pairs"] for score in scores.values())
    assert wrong <= 5, scores


@pytest.mark.slow
def test_profiles_are_refused_and_faces_that_look_here_are_found_and_kept(
    clips: dict[str, Path], labels: dict[str, dict], detector: YuNetDetector
) -> None:
    counts: Counter[str] = Counter()
    for name in TURNED:
        found = seen_in(clips[name], detector)
        times = FrameTimes(Fraction(1, 25), np.arange(found.num_frames), found.num_frames)
        figures = yaw_figures(Look(clips[name], found, times, {}), labels[name], 60)
        counts.update({key: value for key, value in figures.items() if isinstance(value, int)})
    assert counts["frontal_refused"] == 0
    assert counts["profile_refused"] >= 0.9 * counts["profile_frames"] > 0
    seen = counts["frontal_seen"] + counts["mid_seen"]
    assert seen >= 0.97 * (counts["frontal_frames"] + counts["mid_frames"]) > 0
