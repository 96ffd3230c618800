"""Softness, trembling, seams and colour steps, against closed forms and planted faults."""

import math

import pytest
import torch
from torch import Tensor

from latentsync.metrics.artefacts import Jitter, Seam, color_step, seam, sharpness

SIDE = 32


@pytest.fixture
def region() -> Tensor:
    mask = torch.zeros(1, 24, 1, SIDE, SIDE)
    mask[..., 12:28, 8:24] = 1
    return mask


@pytest.fixture
def truth(generator: torch.Generator) -> Tensor:
    return torch.rand(1, 24, 3, SIDE, SIDE, generator=generator) - 0.5


def test_sharpness_is_the_square_of_the_contrast_and_falls_with_blur(region, truth) -> None:
    torch.testing.assert_close(sharpness(truth, truth, region), torch.ones(1))
    torch.testing.assert_close(sharpness(truth / 2, truth, region), torch.full((1,), 0.25))
    values = [1.0]
    for size in (3, 5, 7):
        soft = torch.nn.functional.avg_pool2d(truth[0], size, stride=1, padding=size // 2)[None]
        values.append(sharpness(soft, truth, region).item())
    assert values == sorted(values, reverse=True)
    # What is blurred elsewhere does not count.
    torch.testing.assert_close(
        sharpness(torch.where(region > 0, truth, truth / 9), truth, region),
        torch.ones(1),
        rtol=0.2,
        atol=0,
    )


def test_jitter_grows_with_noise_and_is_one_for_the_truth(generator) -> None:
    time = torch.arange(50.0)[:, None, None] / 25
    lips = 0.1 * torch.sin(9 * time) * torch.ones(1, 40, 2)
    noise = torch.randn(lips.shape, generator=generator)
    values = []
    for amount in (0.0, 0.002, 0.01, 0.05):
        metric = Jitter()
        metric.update(lips + amount * noise, lips)
        values.append(metric.compute()["jitter"])
    assert values[0] == pytest.approx(1)
    assert values == sorted(values)
    still = Jitter()
    still.update(lips[:1].repeat(50, 1, 1), lips)
    assert still.compute()["jitter"] == 0


def test_a_lift_of_every_chunk_is_a_seam_of_its_own_period_only(region) -> None:
    time = torch.arange(24.0)[None, :, None, None, None]
    truth = (0.02 * time).expand(1, 24, 3, SIDE, SIDE).clone()
    torch.testing.assert_close(seam(truth, truth, region, period=6), torch.ones(1))
    values = []
    for lift in (0.0, 0.02, 0.06):
        lifted = truth + lift * (time // 6)  # each chunk a bit brighter than the last
        values.append(seam(lifted, truth, region, period=6).item())
    assert values == pytest.approx([1.0, 2.0, 4.0], rel=1e-3)
    assert seam(lifted, truth, region, period=5).item() < 1.2
    assert math.isnan(seam(truth[:, :6], truth[:, :6], region[:, :6], period=6).item())
    with pytest.raises(ValueError, match="period=1"):
        Seam(period=1)


def test_the_colour_step_is_the_lift_of_the_inside(region, truth) -> None:
    assert color_step(truth, truth, region).item() == 0
    lift = 0.1
    assert color_step(truth + lift * region, truth, region).item() == pytest.approx(12.75, rel=1e-4)
    # A face that is brighter as a whole has no step.
    assert color_step(truth + lift, truth, region).item() == pytest.approx(0, abs=1e-3)
    red = torch.tensor([lift, 0, 0])[:, None, None]
    step = color_step(truth + red * region, truth, region).item()
    assert step == pytest.approx(12.75 / math.sqrt(3), rel=1e-4)
