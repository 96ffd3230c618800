"""Flicker and border metrics against closed forms on simple images."""

import pytest
import torch

from latentsync.metrics.temporal import border_contrast, flicker


@pytest.fixture
def mask() -> torch.Tensor:
    mask = torch.ones(1, 1, 1, 16, 16)
    mask[..., 8:, 4:12] = 0
    return mask


def test_flicker_of_equal_clips_is_one_and_of_a_doubled_motion_two(mask):
    region = (1 - mask).expand(1, 5, 1, 16, 16)
    truth = torch.randn(1, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flicker(truth, truth, region), torch.ones(1))
    torch.testing.assert_close(flicker(2 * truth, truth, region), torch.full((1,), 2.0))


def test_even_motion_does_not_flicker_and_alternation_does(mask):
    region = (1 - mask).expand(1, 6, 1, 16, 16)
    time = torch.arange(6.0)[None, :, None, None, None].expand(1, 6, 3, 16, 16)
    truth = 0.1 * (-1) ** time
    assert flicker(0.1 * time, truth, region).item() == pytest.approx(0, abs=1e-5)
    assert flicker(3 * truth, truth, region).item() == pytest.approx(3)


def test_border_of_a_lifted_inside_is_the_lift_over_the_natural_step(mask):
    columns = torch.arange(16.0).expand(16, 16) * 0.05
    truth = (columns + columns.T).expand(1, 1, 3, 16, 16).clone()
    torch.testing.assert_close(border_contrast(truth, truth, mask), torch.ones(1))
    lifted = truth + 0.3 * (1 - mask)
    # Steps along x and y are 0.05. The offset adds at the left and upper borders (16 of 24 pairs),
    # where the gradient rises into the mask, and is reduced by it at the right (8).
    expected = (16 * 0.35 + 8 * 0.25) / (24 * 0.05)
    assert border_contrast(lifted, truth, mask).item() == pytest.approx(expected, rel=1e-4)


def test_the_border_does_not_depend_on_the_number_of_threads():
    random = torch.Generator().manual_seed(0)
    pixels, truth = (torch.rand(1, 96, 3, 256, 256, generator=random) * 2 - 1 for _ in range(2))
    where = torch.zeros(256, 256)
    where[100:240, 30:220] = 1
    where = where.expand(1, 96, 1, -1, -1)
    before = torch.get_num_threads()
    values = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            values.append(border_contrast(pixels, truth, where))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(values[0], value) for value in values)
