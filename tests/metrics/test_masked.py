"""PSNR and SSIM by region, against closed forms."""

import math

import pytest
import torch

from latentsync.metrics.masked import masked_psnr, masked_ssim


@pytest.fixture
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of two clips, and a mask that is 0 in the lower half."""
    pixels = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.ones(2, 3, 1, 32, 32)
    mask[..., 16:, :] = 0
    return pixels, mask


def test_psnr_of_a_known_error_inside_and_nothing_outside(clip):
    truth, mask = clip
    pixels = truth + 0.1 * (1 - mask)
    expected = 10 * math.log10(2.0**2 / 0.1**2)
    torch.testing.assert_close(masked_psnr(pixels, truth, 1 - mask), torch.full((2,), expected))
    assert masked_psnr(pixels, truth, mask).isinf().all()


def test_psnr_of_noise_of_known_variance(clip):
    truth, mask = clip
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)) * 0.05
    expected = 10 * math.log10(4 / 0.05**2)
    value = masked_psnr(truth + noise, truth, 1 - mask)
    torch.testing.assert_close(value, torch.full((2,), expected), atol=0.3, rtol=0)


def test_ssim_is_one_for_equal_pictures_and_less_only_where_they_differ(clip):
    truth, mask = clip
    torch.testing.assert_close(masked_ssim(truth, truth, mask), torch.ones(2))
    changed = truth.clone()
    changed[..., 24:, :] = changed[..., 24:, :].flip(-1)
    assert (masked_ssim(changed, truth, 1 - mask) < 0.8).all()
    assert (masked_ssim(changed, truth, mask) > 0.95).all()
