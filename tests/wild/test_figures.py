"""The figures of the bench on a hand-made survey, without clips."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from wild_figures import Look, figures_of, named_tracks, totals
from wild_occlusion import occlusion_figures, occlusion_rates

from latentsync.faces import Placement
from latentsync.faces.occlusion import SIDE, Occluder, OcclusionMasker
from latentsync.faces.tracking.survey import Shot, Survey, Track
from latentsync.media.frame_reader import FrameTimes
from latentsync.media.video import VideoWriter

NUM_FRAMES = 40
LABEL = {
    "kind": "photo",
    "cuts": [{"at": [20, 20]}, {"at": [30, 30]}],
    "people": [{"id": "A", "spans": [[0, 19]]}, {"id": "B", "spans": [[20, 39]]}],
    "yaw_spans": [
        {"person": "A", "span": [0, 19], "class": "profile"},
        {"person": "B", "span": [20, 39], "class": "frontal"},
    ],
    "occlusion_spans": [{"person": "A", "span": [0, 14], "by": "hand"}],
}


def track(person: int, first: int, yaw: float) -> Track:
    """20 frames of a face of 100 pixels that moves back and forth, missing in the last one."""
    step = 10.0 * np.sin(np.arange(20))[:, None, None]
    points = np.array([[300.0, 200.0], [380.0, 205.0], [338.0, 250.0]]) + step
    boxes = np.tile(np.array([280.0, 180.0, 380.0, 280.0]), (20, 1))
    points[-1], boxes[-1] = np.nan, np.nan
    yaws = np.full(20, yaw, np.float32)
    return Track(
        person, first, np.float32(points), np.float32(boxes), np.zeros(20, np.float32), yaws
    )


@pytest.fixture
def look(tmp_path: Path) -> Look:
    path = tmp_path / "still.mp4"
    with VideoWriter(path, fps=25, width=64, height=64) as writer:
        for _ in range(NUM_FRAMES):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    found = Survey(NUM_FRAMES, [Shot(0, 20), Shot(20, 40)], [track(0, 0, -80.0), track(0, 20, 5.0)])
    times = FrameTimes(Fraction(1, 25), np.arange(NUM_FRAMES), NUM_FRAMES)
    return Look(path, found, times, {"decode": 0.5, "all": 2.0})


def test_what_is_labelled_and_what_is_found(look: Look) -> None:
    sections = ("cuts", "faces", "identities", "yaw", "occlusion", "placement", "cost")
    one = figures_of(look, LABEL, sections=sections, max_yaw=60)
    figures = totals({"a.mp4": one, "b.mp4": one})
    assert (figures["cuts"]["P"], figures["cuts"]["R"]) == (1, 0.5)
    assert figures["faces"]["recall"] == 0.95
    assert figures["faces"]["found_80_px"] == 2 * 38
    assert figures["faces"]["unlabelled_tracks"] == 0
    assert figures["identities"]["right_share"] == 0
    assert figures["identities"]["merged_pairs"] == 2
    assert figures["yaw"]["AUC"] == 1
    assert figures["yaw"]["profile_refused_share"] == 1
    assert figures["yaw"]["frontal_refused_share"] == 0
    assert figures["yaw"]["recall_frontal_mid"] == 0.95
    # The profile is left alone anyway, in the middle five frames and in those that nothing hides.
    assert figures["occlusion"]["hand_left_alone"] == figures["occlusion"]["hand_frames"] == 2 * 5
    assert figures["occlusion"]["hand_kept_share"] == 1
    assert figures["occlusion"]["painted_share"] is None
    assert 0 < figures["placement"]["lag_p95"] < 6
    assert figures["cost"]["all_ms_per_frame"] == 50


def test_tracks_that_fit_no_label_are_counted(look: Look) -> None:
    label = {**LABEL, "people": LABEL["people"][:1]}
    assert figures_of(look, label, sections=("faces",), max_yaw=60)["faces"] == {
        "expected": 20,
        "found": 19,
        "unlabelled": 19,
        "unlabelled_frames": 19,
        "unlabelled_tracks": 1,
        "found_0_px": 0,
        "found_40_px": 0,
        "found_80_px": 38,
    }


SPANS = [
    {"person": "B", "span": [22, 25], "by": "hands"},
    {"person": "B", "span": [27, 27], "by": "microphone"},
    {"person": "B", "span": [30, 33], "by": "hand", "doubtful": True},
]


def occlusion_counts(look: Look, masker: OcclusionMasker | None, edge: int) -> dict[str, int]:
    label = {**LABEL, "cuts": [{"at": [20, 20]}], "occlusion_spans": SPANS}
    named = named_tracks(look, label)
    return occlusion_figures(
        look.path, look.survey, look.times, named, label, max_yaw=60, masker=masker, edge=edge
    )


def test_hidden_mouths_are_kept_and_free_ones_painted(look: Look) -> None:
    blind = occlusion_counts(look, None, 0)
    rates = occlusion_rates(blind)
    # The last of the 20 frames shows no face; 9 are hidden, surely or not.
    assert (blind["free_frames"], rates["painted_share"]) == (10, 1)
    assert (rates["hand_kept_share"], rates["other_kept_share"]) == (0, 0)
    rates = occlusion_rates(occlusion_counts(look, SeesFrom24(), 0))
    assert (rates["hand_kept_share"], rates["other_kept_share"]) == (0.5, 1)
    # Of 20, 21, 26, 28, 29, 34 and so on, two are free to its eyes.
    assert rates["painted_share"] == 0.2


def test_frames_beside_the_ends_of_spans_count_for_nothing(look: Look) -> None:
    """Of 22 to 25 the inner two are left, of 27 none; free are 20 and 35 to 38."""
    seen = occlusion_counts(look, SeesFrom24(), 1)
    assert (seen["hand_frames"], seen["hand_masked"]) == (2, 1)
    assert "other_frames" not in seen
    assert (seen["free_frames"], seen["free_painted"]) == (5, 1)


class SeesFrom24:
    """Everything is hidden from frame 24 on, the fifth that it is shown of a shot."""

    every = 1
    cache_key = "from 24"

    def __init__(self) -> None:
        self.number = 19

    def __call__(
        self, frame: np.ndarray, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        self.number += 1
        return Occluder(np.ones((SIDE, SIDE), np.float32)) if self.number >= 24 else None
