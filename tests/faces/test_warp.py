"""Shrinking maps of pictures."""

import numpy as np
import pytest

from latentsync.faces.warp import invert, source_box, transform, warp


@pytest.mark.parametrize("scale", [0.9, 0.5, 0.37, 0.3, 0.21])
@pytest.mark.parametrize("size", [(640, 360), (641, 363), (211, 307)])
def test_a_slope_stays_a_slope_wherever_it_is_sampled(scale: float, size: tuple[int, int]) -> None:
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    slope = 0.3 * x + 0.2 * y
    angle = np.radians(10)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for shift in ((-20.3, -15.0), (4.5, 7.25), (-0.4 * width * scale, -0.6 * height * scale)):
        matrix = np.column_stack([turn, shift])
        warped = warp(slope, matrix, (64, 48))
        rows, columns = np.mgrid[:48, :64]
        source = transform(
            invert(matrix), np.stack([columns.ravel(), rows.ravel()], 1).astype(float)
        )
        inside = ((source > 8) & (source < np.array([width, height]) - 9)).all(axis=1)
        assert inside.sum() > 400
        expected = source @ [0.3, 0.2]
        # Weights of bilinear interpolation are multiples of 1/32 pixel.
        assert np.abs(warped.ravel() - expected)[inside].max() < 0.06 / scale


def test_a_picture_of_odd_size_is_used_to_its_edge() -> None:
    bright = np.full((101, 101), 200, np.uint8)
    matrix = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]])
    assert source_box(matrix, (50, 50), (101, 101), margin=4) == (0, 0, 101, 101)
    assert (warp(bright, matrix, (50, 50)) == 200).all()
