from collections.abc import Iterator

import numpy as np
import pytest

from latentsync.faces import (
    OfficialAligner,
    Placement,
    SmoothAligner,
    align,
    aligned_box,
    crop_template,
    similarity_from_points,
)
from latentsync.faces.warp import transform, whole_blocks

FACE = np.array([[300.0, 200.0], [380.0, 205.0], [338.0, 250.0]])


def similarity(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(degrees)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


@pytest.mark.parametrize("degrees", [-150, -20, 0, 35, 90])
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.7])
def test_a_known_rotation_scale_and_shift_is_recovered(degrees: float, scale: float) -> None:
    template, _ = crop_template(256)
    truth = similarity(degrees, scale, (40.0, -25.0))
    points = transform(truth, template)
    back = similarity_from_points(points, template)
    np.testing.assert_allclose(transform(back, points), template, atol=1e-9)
    np.testing.assert_allclose(back[:, :2] @ truth[:, :2], np.eye(2), atol=1e-12)


@pytest.mark.parametrize(
    ("resolution", "size"), [(128, (105, 140)), (256, (210, 280)), (384, (314, 419))]
)
def test_crop_sizes_truncate_as_the_official_ones_do(resolution: int, size: tuple) -> None:
    assert crop_template(resolution)[1] == size


@pytest.mark.parametrize("resolution", [256, 512])
def test_matrices_equal_the_official_ones(official: dict, resolution: int) -> None:
    template, size = crop_template(resolution)
    np.testing.assert_array_equal(template, official[f"template_{resolution}"])
    np.testing.assert_array_equal(size, official[f"face_size_{resolution}"])
    # The official ones are float32: an error of 1e-7 in rotation, a thousand pixels from the
    # corner.
    for points, expected in zip(
        official["landmarks"], official[f"M_nosmooth_{resolution}"], strict=True
    ):
        matrix = similarity_from_points(points.astype(float), template)
        np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(matrix[:, :2], expected[:, :2], rtol=0, atol=2e-6)


@pytest.mark.parametrize("resolution", [256, 512])
def test_the_official_aligner_carries_its_bias_along(official: dict, resolution: int) -> None:
    aligner = OfficialAligner(resolution)
    points = official["landmarks"].astype(float)
    for index, placement in enumerate(aligner.placements(points + 0.3)):
        np.testing.assert_allclose(
            placement.matrix, official[f"M_{resolution}"][index], rtol=0, atol=1e-3
        )
        np.testing.assert_allclose(
            aligner.bias, official[f"p_bias_{resolution}"][index], rtol=0, atol=1e-5
        )


def test_mirrored_points_give_a_rotation_not_a_mirror(official: dict) -> None:
    points = official["landmarks_mirror"].astype(float)
    (placement,) = OfficialAligner(256).placements([points])
    assert np.linalg.det(placement.matrix[:, :2]) > 0
    np.testing.assert_allclose(placement.matrix, official["M_mirror_256"], rtol=0, atol=1e-3)


def test_official_faces_are_equal_to_a_level(
    official: dict, official_frame: np.ndarray, share_off: float
) -> None:
    placements = list(OfficialAligner(256).placements(official["landmarks"].astype(float)))
    for index, expected in zip(official["resized_256_idx"], official["resized_256"], strict=True):
        face = align(official_frame, placements[index], 256)
        difference = np.abs(face.astype(int) - expected)
        assert difference.max() <= 2
        assert (difference > 1).mean() < 1e-3
        assert (difference > 0).mean() < share_off


def test_coinciding_points_are_refused() -> None:
    with pytest.raises(ValueError, match="fall together"):
        similarity_from_points(np.ones((3, 2)), crop_template(256)[0])


@pytest.mark.parametrize("velocity", [(0.0, 0.0), (3.0, -2.0)])
def test_smoothing_leaves_steady_motion_as_it_is(velocity: tuple[float, float]) -> None:
    path = [FACE + np.array(velocity) * time for time in range(25)]
    smoothed = list(SmoothAligner(256).smooth(path))
    np.testing.assert_allclose(smoothed, path, atol=1e-9)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7])
def test_short_segments_keep_their_length(num_frames: int) -> None:
    path = [FACE + index for index in range(num_frames)]
    np.testing.assert_allclose(list(SmoothAligner(128).smooth(path)), path, atol=1e-9)


def test_smoothing_is_a_gaussian_mean_inside_a_segment(rng: np.random.Generator) -> None:
    path = FACE + rng.normal(scale=0.3, size=(31, 3, 2))
    weights = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    weights /= weights.sum()
    smoothed = np.stack(list(SmoothAligner(256).smooth(path)))
    for index in range(4, 27):
        expected = np.tensordot(weights, path[index - 4 : index + 5], axes=1)
        np.testing.assert_allclose(smoothed[index], expected, atol=1e-9)
    # The ends have neighbours on one side only, but improve as well.
    many = FACE + rng.normal(scale=0.3, size=(400, 12, 3, 2))
    ends = np.stack([next(SmoothAligner(256).smooth(one)) for one in many])
    assert (ends - FACE).std() < 0.27


@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
def test_a_head_that_shakes_is_followed_within_four_pixels_of_256(size: float) -> None:
    """Six frames back and forth, and a turn to a full stop: smoothing alone lags by 15 and 17."""
    time = np.arange(60.0)
    shake = np.where(time < 40, np.sin(time * np.pi / 3), 0)[:, None, None] * np.array([12.0, 4.0])
    path = size * (FACE + shake)
    smoothed = list(SmoothAligner(256).placements(path))
    still = list(SmoothAligner(256, sigma_frames=0.3, radius=0).placements(path))
    for points, followed, exact in zip(path, smoothed, still, strict=True):
        lag = transform(followed.matrix, points) - transform(exact.matrix, points)
        # For small faces, two thirds of a frame pixel are more than four of 256.
        assert np.linalg.norm(lag, axis=1).max() <= max(4.5, 2.0 / size)
    assert np.ptp([point[0, 0] for point in path]) > 20 * size


def test_a_still_head_is_smoothed_as_much_as_ever(rng: np.random.Generator) -> None:
    path = FACE + rng.normal(scale=0.4, size=(60, 3, 2))
    smoothed = np.stack(list(SmoothAligner(256).smooth(path)))
    assert np.diff(smoothed, axis=0).std() < 0.35 * np.diff(path, axis=0).std()


def test_a_gap_parts_the_smoothing(rng: np.random.Generator) -> None:
    first, second = (FACE + rng.normal(size=(6, 3, 2)) for _ in range(2))
    together = list(SmoothAligner(256).smooth([*first, None, None, *second]))
    assert together[6] is None
    assert together[7] is None
    np.testing.assert_array_equal(together[:6], list(SmoothAligner(256).smooth(first)))
    np.testing.assert_array_equal(together[8:], list(SmoothAligner(256).smooth(second)))


def test_a_cut_parts_the_smoothing(rng: np.random.Generator) -> None:
    first = FACE + rng.normal(size=(9, 3, 2))
    second = 400 + 1.5 * FACE + rng.normal(size=(9, 3, 2))
    together = list(SmoothAligner(256).smooth([*first, *second]))
    np.testing.assert_array_equal(together[:9], list(SmoothAligner(256).smooth(first)))
    np.testing.assert_array_equal(together[9:], list(SmoothAligner(256).smooth(second)))


def test_smoothing_looks_ahead_four_frames_only() -> None:
    num_read = 0

    def points() -> Iterator[np.ndarray]:
        nonlocal num_read
        for _ in range(100):
            num_read += 1
            yield FACE

    for num_given, _ in enumerate(SmoothAligner(256).placements(points()), start=1):
        assert num_read <= num_given + 5


def test_both_aligners_place_a_resting_face_alike() -> None:
    points = np.array([[301.0, 200.0], [383.0, 200.0], [342.0, 240.0]])  # the template, times two
    (smooth,) = SmoothAligner(256).placements([points])
    (official,) = OfficialAligner(256).placements([points])
    corners = np.array([[250.0, 150.0], [450.0, 150.0], [340.0, 400.0]])
    np.testing.assert_allclose(
        transform(smooth.square_matrix(256), corners),
        transform(official.square_matrix(256), corners),
        atol=0.3,  # the official bias
    )
    # Brows and nose in the square, up to the half pixel between edges and centres.
    expected = np.array([[58.0, 51.2], [198.0, 51.2], [128.0, 102.4]])
    np.testing.assert_allclose(transform(smooth.matrix, points), expected, atol=0.2)


def test_a_large_face_shrinks_without_aliasing() -> None:
    stripes = np.zeros((1200, 1200, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    placement = Placement(np.array([[128 / 1000, 0, -12], [0, 128 / 1000, -12]]), (128, 128))
    face = align(stripes, placement, 128)
    np.testing.assert_allclose(face, 127.5, atol=20)  # each averages 4 and 3 stripes


def test_a_face_outside_the_frame_is_all_border(soft_frame: np.ndarray) -> None:
    for aligner in (OfficialAligner(64), SmoothAligner(64)):
        (placement,) = aligner.placements([FACE + 5000])
        np.testing.assert_array_equal(align(soft_frame, placement, 64), 127)


@pytest.mark.parametrize("scale", [0.24, 0.3, 0.45, 0.8])
@pytest.mark.parametrize("shift", [(-30.0, -20.0), (-90.0, -60.0), (20.0, 15.0)])
def test_the_part_of_a_frame_that_is_read_gives_the_same_face(
    rng: np.random.Generator, scale: float, shift: tuple[float, float]
) -> None:
    """But for rounding, also at the edges: blocks that are averaged begin at the same pixels."""
    frame = rng.integers(0, 256, (523, 701, 3), np.uint8)
    placement = Placement(similarity(8.0, scale, shift), (128, 128))
    x0, y0, x1, y1 = aligned_box(placement, 128, frame.shape[:2])
    part = align(frame[y0:y1, x0:x1], placement.inside(x0, y0), 128)
    whole = align(frame, placement, 128)
    np.testing.assert_allclose(part.astype(int), whole.astype(int), atol=1)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_blocks_are_whole_where_they_fit_in(size: int) -> None:
    for length in range(1, 30):
        for first in range(length):
            for end in range(first + 1, length + 1):
                begin, stop = whole_blocks(first, end, length, size)
                assert 0 <= begin <= first < end <= stop <= length
                fits = -(-(end - first) // size) * size <= length
                assert ((stop - begin) % size == 0) if fits else (begin, stop) == (first, end)
