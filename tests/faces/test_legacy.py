from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import pytest

from latentsync.faces import (
    ALIGNERS,
    Face,
    LegacyAligner,
    MeshDetector,
    OfficialAligner,
    SmoothAligner,
    align,
    paste,
    track,
)
from latentsync.faces.legacy import damp
from latentsync.faces.warp import transform

FACE = np.array([[401.0, 251.0], [499.0, 263.0], [446.0, 309.0]])
GROUPS = ((17, 22), (22, 27), (27, 36))


def landmarks(rng: np.random.Generator, triple: np.ndarray = FACE) -> np.ndarray:
    """68 points in a box 180 wide, with the given means of brows and nose."""
    points = rng.uniform(-30, 30, (68, 2)) + triple.mean(axis=0)
    for (first, end), center in zip(GROUPS, triple, strict=True):
        points[first:end] += center - points[first:end].mean(axis=0)
    points[0, 0], points[16, 0] = triple[:, 0].mean() + np.array([-90, 90])
    return points


def face_of(points: np.ndarray, scheme: str) -> Face:
    return Face(np.zeros(4), points, 1.0, scheme)


def test_one_frame_lies_where_the_official_aligner_puts_it(rng: np.random.Generator) -> None:
    official = OfficialAligner(256)
    (expected,) = official.placements([FACE])
    (found,) = LegacyAligner(256).placements([landmarks(rng)])
    # The official one is computed in float32.
    np.testing.assert_allclose(found.matrix[:, :2], expected.matrix[:, :2], atol=1e-6)
    # The bias enters our population standard deviation, but the official sample one.
    extra = (np.sqrt(6 / 5) - 1) * official.bias.numpy()
    np.testing.assert_allclose(found.matrix[:, 2], expected.matrix[:, 2] + extra, atol=1e-3)


def test_nothing_is_rounded(rng: np.random.Generator) -> None:
    shift = np.array([0.31, -0.44])
    (before,) = LegacyAligner(256).placements([landmarks(rng)])
    (after,) = LegacyAligner(256).placements([landmarks(rng, FACE + shift)])
    np.testing.assert_allclose(
        transform(after.matrix, FACE + shift), transform(before.matrix, FACE)
    )


@pytest.mark.parametrize("resolution", [128, 256, 512])
def test_the_crop_has_one_size(resolution: int) -> None:
    (placement,) = ALIGNERS["legacy"](resolution).placements([FACE])
    assert placement.size == (210, 280)


def test_a_step_is_held_back_by_its_size_against_the_face(rng: np.random.Generator) -> None:
    before = landmarks(rng)
    steps = np.linspace(0, 12, 68)
    after = before + np.array([0.6, 0.8]) * steps[:, None]
    width = after[:, 0].max() - after[:, 0].min()
    held = np.linalg.norm(after - damp(after, before), axis=1)
    np.testing.assert_allclose(held, steps * np.exp(-(steps**2) / (0.3 * width)), atol=1e-9)


def test_jitter_shrinks_and_jumps_pass(rng: np.random.Generator) -> None:
    still = landmarks(rng)
    path = [still + rng.normal(scale=0.5, size=still.shape) for _ in range(60)]
    aligner = LegacyAligner(256)
    places = [transform(placement.matrix, FACE) for placement in aligner.placements(path)]
    unsmoothed = [transform(LegacyAligner(256).place(one).matrix, FACE) for one in path]
    assert np.diff(places, axis=0).std() < 0.5 * np.diff(unsmoothed, axis=0).std()
    aligner.place(still + 300)
    np.testing.assert_allclose(aligner.smoothed, still + 300, atol=1e-9)


def test_three_points_are_damped_as_the_68_they_stand_for(rng: np.random.Generator) -> None:
    many = landmarks(rng)
    width = 1.9 * np.linalg.norm(FACE[1] - FACE[0])
    many[0, 0] = many[16, 0] - width
    step = np.array([1.5, -2.0])
    triples = list(LegacyAligner(256).placements([FACE, FACE + step]))
    sets = list(LegacyAligner(256).placements([many, many + step]))
    for triple, whole in zip(triples, sets, strict=True):
        np.testing.assert_allclose(triple.matrix, whole.matrix, atol=1e-9)


def test_frames_without_a_face_leave_the_memory_alone(rng: np.random.Generator) -> None:
    path = [landmarks(rng) for _ in range(3)]
    with_gap = list(LegacyAligner(256).placements([path[0], None, path[1], None, path[2]]))
    assert with_gap[1] is None
    assert with_gap[3] is None
    for found, expected in zip(with_gap[::2], LegacyAligner(256).placements(path), strict=True):
        np.testing.assert_array_equal(found.matrix, expected.matrix)


def test_points_of_a_face_are_all_the_smoothing_can_use(rng: np.random.Generator) -> None:
    aligner = LegacyAligner(256)
    many = landmarks(rng)
    np.testing.assert_array_equal(aligner.points_of(face_of(many, "68")), many)
    np.testing.assert_array_equal(aligner.points_of(face_of(FACE, "three")), FACE)
    assert aligner.points_of(face_of(np.zeros((106, 2)), "106")).shape == (3, 2)
    assert aligner.points_of(face_of(np.zeros((468, 2)), "mesh")).shape == (36, 2)
    with pytest.raises(ValueError, match="'box'"):
        aligner.points_of(face_of(np.zeros((2, 2)), "box"))


def test_other_numbers_of_points_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="got 5"):
        LegacyAligner(256).place(np.zeros((5, 2)))
    aligner = LegacyAligner(256)
    aligner.place(FACE)
    with pytest.raises(ValueError, match="got 68 after 3"):
        aligner.place(landmarks(rng))


def test_faces_are_cut_with_lanczos_from_the_whole_frame(
    official_frame: np.ndarray, official: dict
) -> None:
    (placement,) = LegacyAligner(256).placements([official["landmarks"][0].astype(float)])
    crop = cv2.warpAffine(
        official_frame,
        placement.matrix,
        (210, 280),
        flags=cv2.INTER_LANCZOS4,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[127, 127, 127],
    )
    expected = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_LANCZOS4)
    difference = np.abs(align(official_frame, placement, 256).astype(int) - expected)
    assert (difference > 0).mean() < 0.01
    assert difference.max() <= 2


def test_a_face_put_back_is_where_it_was(soft_frame: np.ndarray) -> None:
    (placement,) = LegacyAligner(256).placements([FACE])
    face = align(soft_frame, placement, 256)
    for region in ("mask", "crop"):
        out = paste(soft_frame, face, placement, region=region)
        difference = out.astype(float) - soft_frame
        changed = np.abs(difference).max(axis=2) > 0
        assert 20 * np.log10(255 / np.sqrt((difference[changed] ** 2).mean())) > 38


def test_mesh_faces_lie_as_the_smooth_aligner_puts_them(
    real_frames: Iterator[np.ndarray], detector: MeshDetector
) -> None:
    # The means over the whole nose and over its lower part differ by a hundredth of the face.
    (face,) = track(islice(real_frames, 1), detector)
    corners = np.array([[300.0, 600.0], [800.0, 600.0], [500.0, 900.0]])
    squares = []
    for kind in (LegacyAligner, SmoothAligner):
        aligner = kind(256)
        (placement,) = aligner.placements([aligner.points_of(face)])
        squares.append(transform(placement.square_matrix(256), corners))
    np.testing.assert_allclose(*squares, atol=6)
