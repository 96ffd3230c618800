import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.faces import Face, MeshDetector, SmoothAligner, mouth_shape, three_points, track
from latentsync.faces.detectors.blazeface import anchors, suppress, tile_levels
from latentsync.faces.detectors.facemesh import mesh_roi
from latentsync.faces.shape import yaw_degrees
from latentsync.faces.warp import transform
from latentsync.media.video import read_frames


def test_the_face_is_found_in_real_frames(
    detector: MeshDetector, real_frames: Iterator[np.ndarray]
) -> None:
    for index, frame in enumerate(islice(real_frames, 0, 96, 12)):
        faces = detector(frame)
        assert len(faces) == 1, f"frame {12 * index}"
        left, right, nose = three_points(faces[0])
        assert left[0] < nose[0] < right[0]
        assert nose[1] > max(left[1], right[1])


def test_following_finds_what_detecting_finds(
    detector: MeshDetector, real_frames: Iterator[np.ndarray]
) -> None:
    frames = list(islice(real_frames, 12))
    for frame, followed in zip(frames, track(frames, detector), strict=True):
        (found,) = detector(frame)
        apart = np.linalg.norm(three_points(found) - three_points(followed), axis=1).max()
        assert apart < 0.04 * (found.box[2] - found.box[0])


def test_the_smooth_aligner_takes_the_jitter_out(
    detector: MeshDetector, real_frames: Iterator[np.ndarray]
) -> None:
    points = [three_points(face) for face in track(islice(real_frames, 40), detector)]
    smoothed = list(SmoothAligner(256).smooth(points))
    assert np.diff(smoothed, n=2, axis=0).std() < 0.5 * np.diff(points, n=2, axis=0).std()


@pytest.mark.parametrize("degrees", [-90, -40, 30, 75])
def test_turned_pictures_give_turned_points(
    detector: MeshDetector, real_frames: Iterator[np.ndarray], degrees: float
) -> None:
    frame = next(real_frames)
    (upright,) = detector(frame)
    x, y = upright.points.mean(axis=0)
    turn = cv2.getRotationMatrix2D((x, y), degrees, 1) + np.array(
        [[0, 0, 700 - x], [0, 0, 700 - y]]
    )
    (found,) = detector(cv2.warpAffine(frame, turn, (1400, 1400)))
    apart = np.linalg.norm(found.points - transform(turn, upright.points), axis=1).mean()
    assert apart < 0.03 * (upright.box[2] - upright.box[0])


@pytest.mark.parametrize("face_width", [60, 40])
@pytest.mark.parametrize("corner", [(0, 0), (333, 800), (700, 1500)])
def test_small_faces_in_large_frames_are_found(
    detector: MeshDetector,
    real_frames: Iterator[np.ndarray],
    face_width: int,
    corner: tuple[int, int],
) -> None:
    frame = next(real_frames)
    (face,) = detector(frame)
    scale = face_width / (face.box[2] - face.box[0])
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    large = np.full((1080, 1920, 3), 96, dtype=np.uint8)
    y = min(corner[0], 1080 - small.shape[0])
    x = min(corner[1], 1920 - small.shape[1])
    large[y : y + small.shape[0], x : x + small.shape[1]] = small
    (found,) = detector(large)
    expected = face.points * scale + [x, y]
    assert np.linalg.norm(found.points - expected, axis=1).mean() < 0.06 * face_width


def test_drawn_faces_are_found_and_their_mouths_read(
    detector: MeshDetector, talking_clip: Path
) -> None:
    from latentsync.data.synthetic import read_truth

    faces = list(track(read_frames(talking_clip), detector))
    assert None not in faces
    opening = [mouth_shape(face).opening for face in faces]
    assert np.corrcoef(opening, read_truth(talking_clip)["open"][: len(faces)])[0, 1] > 0.7


@pytest.mark.parametrize("shape", [(1080, 1920, 3), (40, 60, 3), (1, 1, 3), (2000, 100, 3)])
def test_an_empty_picture_has_no_face(detector: MeshDetector, shape: tuple[int, int, int]) -> None:
    assert detector(np.full(shape, 80, dtype=np.uint8)) == []


def test_a_detector_can_be_sent_to_another_process(
    detector: MeshDetector, official_frame: np.ndarray
) -> None:
    copy = pickle.loads(pickle.dumps(detector))  # noqa: S301
    (found,) = copy(official_frame)
    np.testing.assert_array_equal(found.points, detector(official_frame)[0].points)


def test_anchors_are_the_centres_of_the_cells() -> None:
    centers = anchors()
    assert len(centers) == 896
    np.testing.assert_array_equal(centers[:3], [[8, 8], [8, 8], [24, 8]])
    np.testing.assert_array_equal(centers[512:519], [[16, 16]] * 6 + [[48, 16]])
    np.testing.assert_array_equal(centers[-1], [240, 240])


@pytest.mark.parametrize(
    "size", [(1920, 1080), (1080, 1920), (3840, 2160), (256, 256), (100, 3000)]
)
def test_tiles_cover_the_frame_with_room_to_spare(size: tuple[int, int]) -> None:
    width, height = size
    for tiles in tile_levels(width, height):
        side = tiles[0][2]
        for point in np.random.default_rng(0).uniform(0, 1, (50, 2)) * size:
            inside = [
                left <= point[0] <= left + side and top <= point[1] <= top + side
                for left, top, _ in tiles
            ]
            assert any(inside)


def test_overlapping_boxes_become_one() -> None:
    def found(x: float, score: float) -> list[float]:
        return [x, 0, x + 10, 10, x, 1, x + 2, 1, score]

    kept = suppress(np.array([found(1, 0.6), found(0, 0.9), found(50, 0.7)]))
    np.testing.assert_allclose(kept[:, 8], [0.9, 0.7])
    np.testing.assert_allclose(kept[:, 0], [0.6 / 1.5, 50])
    assert suppress(np.zeros((0, 9))).shape == (0, 9)


def test_the_region_of_a_mesh_is_upright_and_half_as_large_again() -> None:
    points = np.random.default_rng(0).uniform(-50, 50, (468, 2))
    points[[33, 263]] = [[-20, 0], [20, 0]]
    turn = np.array([[0.0, -1, 300], [1, 0, 200]])  # 90 degrees
    inside = transform(mesh_roi(transform(turn, points)), transform(turn, points))
    np.testing.assert_allclose((inside.max(axis=0) - inside.min(axis=0)).max(), 192 / 1.5)
    np.testing.assert_allclose((inside.max(axis=0) + inside.min(axis=0)) / 2, 95.5)
    assert inside[33, 0] < inside[263, 0]
    np.testing.assert_allclose(inside[33, 1], inside[263, 1])


def test_the_mouth_is_measured_in_eye_distances() -> None:
    points = np.zeros((468, 2))
    points[[33, 263]] = [[-3, 0], [3, 4]]  # 7.2 apart
    points[[13, 14]] = [[0, 10], [0, 12]]
    points[[61, 291]] = [[-2, 11], [2, 11]]
    face = Face(np.zeros(4), points, 1.0, "mesh")
    np.testing.assert_allclose(mouth_shape(face), np.array([2, 4]) / np.sqrt(52))
    with pytest.raises(ValueError, match="'68'"):
        mouth_shape(Face(np.zeros(4), np.zeros((68, 2)), 1.0, "68"))


def test_a_turn_needs_mesh_points() -> None:
    with pytest.raises(ValueError, match="'68'"):
        yaw_degrees(Face(np.zeros(4), np.zeros((68, 2)), 1.0, "68", np.zeros(68)))


def test_a_mirrored_head_is_turned_the_other_way(
    detector: MeshDetector, real_frames: Iterator[np.ndarray]
) -> None:
    for frame in islice(real_frames, 0, 61, 30):
        (face,), (mirrored,) = detector(frame), detector(np.ascontiguousarray(frame[:, ::-1]))
        assert yaw_degrees(face) == pytest.approx(-yaw_degrees(mirrored), abs=6)
        assert abs(yaw_degrees(face)) < 25


def test_a_drawn_head_that_turns_to_the_right_has_a_positive_turn(detector: MeshDetector) -> None:
    from latentsync.data.synthetic import Speaker
    from latentsync.data.synthetic.render import Portrait, at, head_motion

    rng = np.random.default_rng(900011)
    portrait = Portrait(Speaker.random(rng), 256)
    still = {name: 0 * trace for name, trace in head_motion(1, 25.0, rng).items()} | {
        "scale": np.ones(1)
    }
    shape = {"open": 0.2, "width": 0.5, "round": 0.2, "teeth": 0.3, "tongue": 0.2}
    turns = []
    for yaw in (-0.3, 0.0, 0.3):
        motion = at(still | {"yaw": np.array([yaw])}, 0)
        turns.append(yaw_degrees(detector(portrait.frame(shape, motion))[0]))
    left, front, right = turns
    assert left + 5 < front < right - 5


def test_others_are_found_beside_the_known(
    detector: MeshDetector, real_frames: Iterator[np.ndarray]
) -> None:
    frame = cv2.resize(next(real_frames), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    pair = np.ascontiguousarray(np.hstack([frame, frame[:, ::-1]]))
    faces = sorted(detector(pair), key=lambda face: face.box[0])
    assert len(faces) == 2
    (found,) = detector.others(pair, faces[:1])
    apart = np.linalg.norm(found.points - faces[1].points, axis=1).mean()
    assert apart < 0.03 * (found.box[2] - found.box[0])
    assert detector.others(pair, faces) == []
    assert len(detector.others(pair, [])) == 2
