"""All labelled clips in one run of the bench: detection, identity and turn of faces."""

from argparse import Namespace
from pathlib import Path

import pytest
from bench_wild import default_faces, measure_clip
from wild_figures import totals

from latentsync.faces.detectors.model_files import HANDS, MESH, OPENCV_ZOO, default_cache

SECTIONS = ("faces", "identities", "yaw", "occlusion")
MIN_PERSONS_RIGHT = 0.9

Figures = dict[str, dict[str, dict]]


@pytest.fixture(scope="session")
def figures(labels: dict[str, dict], clips: dict[str, Path]) -> Figures:
    """Figures by clip and section; takes some minutes."""
    names = (*MESH.checksums, *OPENCV_ZOO.checksums, *HANDS.checksums)
    if not all((default_cache() / name).is_file() for name in names):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    options = Namespace(sections=SECTIONS, faces=default_faces(), lr_asd=None, max_yaw=60)
    return {
        name: measure_clip(path.parent, options, name, labels[name]) for name, path in clips.items()
    }


@pytest.mark.slow
def test_faces_that_look_here_are_found_and_never_refused(figures: Figures) -> None:
    yaw = totals(figures)["yaw"]
    assert yaw["recall_frontal_mid"] >= 0.97
    assert yaw["frontal_refused"] == 0


@pytest.mark.slow
def test_profiles_are_refused(figures: Figures) -> None:
    assert totals(figures)["yaw"]["profile_refused_share"] >= 0.9


@pytest.mark.slow
def test_persons_are_told_apart_over_cuts(figures: Figures) -> None:
    scores = {name: each["identities"] for name, each in figures.items() if each["identities"]}
    assert len(scores) > 12
    right = sum(score["right"] for score in scores.values())
    assert right >= MIN_PERSONS_RIGHT * len(scores)
    assert sum(score["merged_pairs"] + score["split_pairs"] for score in scores.values()) <= 5


@pytest.mark.slow
def test_hardly_any_labelled_face_is_missed(figures: Figures) -> None:
    assert totals(figures)["faces"]["recall"] >= 0.97


@pytest.mark.slow
def test_free_mouths_are_redrawn(figures: Figures) -> None:
    occlusion = totals(figures)["occlusion"]
    assert occlusion["free_frames"] > 600
    assert occlusion["painted_share"] >= 0.98


@pytest.mark.slow
def test_a_hand_before_the_mouth_is_kept(figures: Figures) -> None:
    occlusion = totals(figures)["occlusion"]
    assert occlusion["hand_frames"] > 150
    assert occlusion["hand_kept_share"] >= 0.9
