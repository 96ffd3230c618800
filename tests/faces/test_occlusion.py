import logging
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.faces import Placement
from latentsync.faces.detectors.hands import Hand, HandFinder, joints_roi, palm_anchors
from latentsync.faces.detectors.model_files import HANDS, default_cache
from latentsync.faces.occlusion import (
    NOT_THERE,
    SIDE,
    HandMasker,
    Occluder,
    SegmenterMasker,
    default_masker,
    hands_in_face,
    is_hand,
    steadied,
)
from latentsync.faces.tracking.occlusion import OcclusionTracker
from latentsync.faces.warp import transform
from segmenters import red_is_covered

WHOLE = Placement(np.eye(2, 3), (256, 256))
# A hand pointing upwards: wrist at the bottom, fingers side by side.
JOINTS = np.array(
    [[128, 220]] + [[88 + 20 * f, 180 - 40 * j] for f in range(5) for j in range(4)], dtype=float
)


def square(first: int, end: int) -> np.ndarray:
    covered = np.zeros((SIDE, SIDE), dtype=np.float32)
    covered[first:end, first:end] = 1
    return covered


def test_no_frame_keeps_less_than_its_own_and_its_edge_is_soft() -> None:
    mask = steadied({7: square(40, 80)}, 7, resolution=256)
    assert mask is not None
    assert (mask[82:158, 82:158] == 1).all()
    assert (mask[:50] == 0).all()
    assert np.diff(mask[60:90, 128]).max() < 0.3


def test_what_is_lost_between_two_frames_is_held() -> None:
    seen = {3: square(40, 80), 6: square(50, 90)}
    held = steadied(seen, 4, resolution=SIDE)
    assert held is not None
    assert (held[40:90, 40:90].diagonal() == 1).all()
    assert steadied(seen, 9, resolution=SIDE) is None
    assert steadied({3: square(40, 80), 12: square(40, 80)}, 7, resolution=SIDE) is None


def test_it_comes_and_goes_over_two_frames() -> None:
    seen = {5: square(40, 80)}
    masks = [steadied(seen, number, resolution=SIDE) for number in (2, 3, 4, 5, 6, 7, 8)]
    shares = [None if mask is None else round(float(mask[60, 60]), 2) for mask in masks]
    assert shares == [None, 0.33, 0.67, 1.0, 0.67, 0.33, None]


def test_a_hand_covers_its_joints_and_the_flesh_around_them() -> None:
    covered = hands_in_face([Hand(JOINTS, 1.0)], WHOLE)
    places = np.rint(transform(WHOLE.square_matrix(SIDE), JOINTS)).astype(int)
    inside = places[(places >= 0).all(axis=1)]
    assert covered[inside[:, 1], inside[:, 0]].all()
    assert covered.sum() > cv2.contourArea(cv2.convexHull(places.astype(np.float32)))
    assert not covered[:, :20].any()


@pytest.mark.parametrize(("cut", "is_one"), [(0, True), (7, True), (8, False), (21, False)])
def test_a_new_hand_lies_mostly_in_the_picture(cut: int, is_one: bool) -> None:
    places = np.tile([120.0, 120.0], (21, 1))
    places[9] = 120, 80
    places[:cut, 0] += 100
    places[9, 0] = 220 if cut > 9 else 120
    hand = Hand(places, 0.99)
    assert hand.size <= 128
    assert is_hand(hand, 512, (200, 200)) is is_one
    assert is_hand(hand, 512, (400, 400))


@pytest.mark.parametrize("degrees", [0, 50, 180])
def test_the_hand_network_sees_fingers_up(degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = (JOINTS - 128) @ turn.T + 128
    seen = transform(joints_roi(turned), turned)
    assert seen[0, 1] > seen[9, 1] > seen[12, 1]
    np.testing.assert_allclose(seen, transform(joints_roi(JOINTS), JOINTS), atol=1e-6)


def test_palms_have_two_anchors_in_each_fine_cell_and_six_in_each_coarse_one() -> None:
    anchors = palm_anchors()
    assert anchors.shape == (2 * 24 * 24 + 6 * 12 * 12, 2)
    np.testing.assert_array_equal(anchors[[0, 1, 2]], [[4, 4], [4, 4], [12, 4]])
    np.testing.assert_array_equal(anchors[[1152, 1158]], [[8, 8], [24, 8]])


def test_no_hand_is_seen_in_an_empty_picture() -> None:
    paths = [default_cache() / name for name in HANDS.checksums]
    if not all(path.is_file() for path in paths):
        pytest.skip("the hand models are not fetched: python -m latentsync.faces.fetch")
    frame = np.full((256, 256, 3), 120, dtype=np.uint8)
    assert HandFinder(*paths).look(frame, np.array([128.0, 128.0]), 300.0) == []
    assert HandMasker(*paths)(frame, WHOLE, None) is None


def test_without_its_networks_nothing_is_masked_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.WARNING):
        assert default_masker(cache_dir=tmp_path) is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert NOT_THERE in said
    assert "faces.occlusion=off" in said
    caplog.clear()
    assert default_masker(cache_dir=tmp_path, otherwise="nothing is measured") is None
    assert caplog.records[0].getMessage().endswith("; until then nothing is measured")


def test_a_segmenter_of_ones_own_says_what_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "red.onnx"
    path.write_bytes(red_is_covered())
    masker = default_masker(segmenter=path)
    assert isinstance(masker, SegmenterMasker)
    frame = np.zeros((256, 256, 3), dtype=np.uint8)
    assert masker(frame, WHOLE, None) is None
    frame[:, 128:, 0] = 255
    seen = masker(frame, WHOLE, None)
    assert seen is not None
    np.testing.assert_allclose(seen.covered[:, : SIDE // 2 - 1], 0, atol=1e-6)
    np.testing.assert_allclose(seen.covered[:, SIDE // 2 + 1 :], 1, atol=1e-6)


def test_a_segmenter_must_be_there_and_be_a_network(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    with pytest.raises(FileNotFoundError, match=r"faces\.segmenter=.*bad\.onnx is not a file"):
        default_masker(segmenter=bad)
    bad.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"bad\.onnx is no network that OpenCV reads"):
        default_masker(segmenter=bad)


class Remembers:
    """Sees what it is told of each frame: confidences of hands, by number, which frames hold."""

    every = 4
    cache_key = "told"

    def __init__(self, confidences: dict[int, float]) -> None:
        self.confidences, self.asked = confidences, list[int]()

    def __call__(
        self, frame: np.ndarray, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        number = int(frame[0, 0, 0])
        self.asked.append(number)
        confidence = self.confidences.get(number)
        if confidence is None:
            return None
        return Occluder(np.ones((SIDE, SIDE), np.float32), (Hand(JOINTS, confidence),))


def tracked(confidences: dict[int, float]) -> tuple[set[int], list[int]]:
    """The frames of 40 that are covered, and those that were examined."""
    masker = Remembers(confidences)
    tracker = OcclusionTracker(masker, np.ones((SIDE, SIDE), dtype=bool))
    for number in range(40):
        frame = np.full((2, 2, 3), number, np.uint8)
        tracker(number, partial(np.copy, frame), WHOLE)
    return set(tracker.finish()), masker.asked


def test_a_hand_that_is_hardly_ever_believable_is_none() -> None:
    """However sure the frame is that began it; blurred frames of a real one are kept."""
    real = dict.fromkeys(range(10, 20), 0.95) | {13: 0.3, 14: 0.4, 19: 0.25}
    false = dict.fromkeys(range(28, 38), 0.55) | {28: 0.95, 31: 0.85}
    assert tracked(real)[0] == set(real)
    assert tracked(false)[0] == set()
    assert tracked(real | false)[0] == set(real)
    # Closer together they are one.
    assert tracked(real | {24: 0.4})[0] == set(real) | {24}


def test_frames_that_were_passed_over_are_examined_once_something_is_there() -> None:
    seen, asked = tracked(dict.fromkeys(range(10, 20), 0.95))
    assert asked[:8] == [0, 4, 8, 12, 11, 10, 9, 13]
    assert seen == set(range(10, 20))
    assert len(asked) < 30
