import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from faces.dots import DotDetector, LevelLook
from latentsync.data.synthetic import Speaker
from latentsync.data.synthetic.render import Portrait, at, head_motion
from latentsync.faces import Face, MeshDetector
from latentsync.faces.detectors.base import IdentityEmbedder, three_points
from latentsync.faces.tracking.identity import (
    Appearance,
    ColorEmbedder,
    SFace,
    number_people,
)
from latentsync.faces.tracking.tracklet import Tracklet, mean_embedding
from onnx_files import mean_network


def seen(
    first: int, end: int, *, x: float = 0, side: float = 10, look: float | None = None
) -> Appearance:
    box = np.array([x, 0.0, x + side, side])
    return Appearance(first, end, box, box, None if look is None else np.array([float(look)]))


def test_looks_tell_who_is_who_wherever_they_are() -> None:
    shown = [
        seen(0, 10, x=0, look=1),
        seen(0, 10, x=50, look=5),
        seen(10, 20, x=0, look=5.2),
        seen(10, 20, x=50, look=1.3),
        seen(20, 30, x=100, look=9),
    ]
    assert number_people(shown, limit=1) == [0, 1, 1, 0, 2]


def test_of_those_who_appear_at_once_the_larger_comes_first() -> None:
    shown = [seen(5, 9, look=9), seen(0, 4, side=10, look=2), seen(0, 4, side=20, x=50, look=3)]
    assert number_people(shown, limit=0.5) == [2, 1, 0]


def test_nobody_is_in_a_frame_twice() -> None:
    twins = [seen(0, 10, x=0, look=1), seen(4, 20, x=50, look=1), seen(10, 20, x=0, look=1)]
    assert number_people(twins, limit=1) == [0, 1, 0]


def test_like_looks_are_parted_so_that_the_whole_fits_best() -> None:
    shown = [
        seen(0, 10, x=0, look=1.0),
        seen(0, 10, x=50, look=2.0),
        # Both are nearest to the second person.
        seen(10, 20, x=0, look=1.7),
        seen(10, 20, x=50, look=2.1),
    ]
    assert number_people(shown, limit=2) == [0, 1, 0, 1]


def test_strangers_at_one_place_stay_two_people() -> None:
    assert number_people([seen(0, 5, look=1), seen(5, 9, look=2.5)], limit=1) == [0, 1]
    assert number_people([seen(0, 5, look=1), seen(5, 9, x=90, look=1.9)], limit=1) == [0, 0]


def test_a_person_is_who_is_near_on_average() -> None:
    """Each step is under the limit, but the ends are not: a chain is not one person."""
    chain = [seen(first, first + 5, look=0.8 * first / 5) for first in range(0, 25, 5)]
    assert number_people(chain, limit=1) == [0, 0, 1, 1, 2]


def test_the_mean_of_unit_looks_is_a_unit_look() -> None:
    looks = [np.array([1.0, 0]), np.array([0, 1.0])]
    mean = mean_embedding(looks, [0.5, 0.5])
    np.testing.assert_allclose(mean, np.array([1, 1]) / np.sqrt(2))
    clearer = mean_embedding(looks, [0.5, 0.1])
    assert clearer is not None
    assert clearer[0] > 5 * clearer[1]
    np.testing.assert_allclose(np.linalg.norm(clearer), 1)
    assert mean_embedding([], []) is None


def followed(boxes: list[np.ndarray]) -> Tracklet:
    """A face whose look grows evenly from 0 to 255."""
    tracklet = Tracklet(DotDetector(), three_points, LevelLook())
    frame, points = np.zeros((160, 240, 3), np.uint8), np.array([[20.0, 30], [40, 30], [30, 45]])
    for number, box in enumerate(boxes):
        tracklet.add(number, Face(box, points, number / len(boxes), "three"), frame)
    return tracklet


SMALL, LARGE = np.array([10.0, 10, 30, 30]), np.array([10.0, 10, 60, 60])


def test_a_track_is_sampled_from_begin_to_end() -> None:
    tracklet = followed([LARGE] * 500)
    assert 4 <= len(tracklet.samples) < 8
    embedding = tracklet.appearance().embedding
    assert embedding is not None
    assert 255 / 3 < embedding[0] < 2 * 255 / 3


def test_of_two_samples_the_clearer_one_stays() -> None:
    """Every second one is of the larger face, when there are eight for the first time."""
    tracklet = followed([LARGE if number % 8 == 4 else SMALL for number in range(29)])
    looks = [float(sample.look[0]) for sample in tracklet.samples]
    assert looks == pytest.approx([255 * number / 29 for number in (4, 12, 20, 28)])


def test_without_looks_the_place_decides() -> None:
    shown = [seen(0, 5, x=0), seen(0, 5, x=50, side=9), seen(5, 9, x=51), seen(5, 9, x=3)]
    assert number_people(shown, limit=1) == [0, 1, 1, 0]
    assert number_people([seen(0, 5, x=0), seen(5, 9, x=80)], limit=1) == [0, 1]
    assert number_people([], limit=1) == []


def looks(detector: MeshDetector, seed: int, size: int, gain: float = 1.0) -> np.ndarray:
    """The mean embedding of a synthetic person over three frames."""
    rng = np.random.default_rng(seed)
    portrait = Portrait(Speaker.random(rng), size)
    motion = head_motion(60, 25.0, rng)
    shape = {"width": 0.5, "round": 0.2, "teeth": 0.3, "tongue": 0.2}
    vectors = []
    for time in (0, 25, 50):
        frame = portrait.frame({**shape, "open": time / 60}, at(motion, time)) * gain
        frame = frame.clip(0, 255).astype(np.uint8)
        vectors.append(ColorEmbedder()(frame, detector(frame)[0]))
    return np.mean(vectors, axis=0)


def test_looks_stay_over_size_and_light_and_tell_drawn_people_apart(
    detector: MeshDetector,
) -> None:
    seeds = (900011, 900016)
    once = [looks(detector, seed, 256) for seed in seeds]
    again = [looks(detector, seed, 160, gain=0.85) for seed in seeds]
    for index in range(2):
        assert np.linalg.norm(once[index] - again[index]) < ColorEmbedder().limit
        assert np.linalg.norm(once[index] - again[1 - index]) > ColorEmbedder().limit


def test_a_look_does_not_see_what_the_mouth_says(
    detector: MeshDetector, official_frame: np.ndarray
) -> None:
    (face,) = detector(official_frame)
    painted = official_frame.copy()
    mouth = face.points[[61, 291, 13, 14]].mean(axis=0)
    width = face.points[291, 0] - face.points[61, 0]
    center = (int(mouth[0]), int(mouth[1]))
    cv2.circle(painted, center, int(0.45 * width), (255, 0, 0), thickness=-1)
    np.testing.assert_allclose(
        ColorEmbedder()(painted, face), ColorEmbedder()(official_frame, face), atol=0.02
    )


def test_the_embedder_of_opencv_needs_its_file_and_points(tmp_path: Path) -> None:
    assert isinstance(ColorEmbedder(), IdentityEmbedder)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        SFace(tmp_path / "none.onnx")
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"bad\.onnx"):
        SFace(path)


def test_the_embedder_of_opencv_sees_the_aligned_face(
    detector: MeshDetector, official_frame: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "mean.onnx"
    path.write_bytes(mean_network())
    embedder = SFace(path)
    assert isinstance(embedder, IdentityEmbedder)
    (face,) = detector(official_frame)
    vector = embedder(official_frame, face)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)
    # The network outputs the mean red, green and blue of its input: skin, not the whole frame.
    assert vector[0] > vector[1] > vector[2]
    turned = np.ascontiguousarray(np.rot90(official_frame))
    (face_turned,) = detector(turned)
    np.testing.assert_allclose(embedder(turned, face_turned), vector, atol=0.02)
    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301
    np.testing.assert_array_equal(copy(official_frame, face), vector)
    three = Face(face.box, face.points[:3], 1.0, "three")
    with pytest.raises(ValueError, match="'three'"):
        embedder(official_frame, three)


def test_a_tracklet_does_not_read_the_network_file_again(
    detector: MeshDetector, official_frame: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "mean.onnx"
    path.write_bytes(mean_network())
    embedder = SFace(path)
    key = embedder.cache_key  # which type checks of tests read at every call
    path.unlink()  # its real file has 37 MB
    (face,) = detector(official_frame)
    tracklet = Tracklet(detector, three_points, embedder)
    tracklet.add(0, face, official_frame)
    tracklet.identify()
    assert [sample.look.shape for sample in tracklet.samples] == [(3,)]
    assert embedder.cache_key == key
