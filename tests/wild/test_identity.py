"""Who is who on real clips, by the default detector and its identity."""

from functools import lru_cache
from pathlib import Path

import pytest
from wild_scores import Seen, identities

from latentsync.faces import YuNetDetector, default_detector, three_points
from latentsync.faces.detectors.model_files import MESH, OPENCV_ZOO, default_cache
from latentsync.faces.tracking.survey import Survey, survey
from latentsync.media.frame_reader import stored_frames

# Several tracks of one or more people each: cuts, turns, two side by side.
CLIPS = ["ap_lyl.mp4", "kb_avenger2.mp4", "kb_bill2.mp4", "lp_d12.mp4", "lp_d20.mp4", "cs_HQ1.mp4"]


@pytest.fixture(scope="session")
def detector() -> YuNetDetector:
    names = (*MESH.checksums, *OPENCV_ZOO.checksums)
    if not all((default_cache() / name).is_file() for name in names):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    found = default_detector()
    assert isinstance(found, YuNetDetector)
    return found


@lru_cache(maxsize=1)
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
