"""PSNR and SSIM by region, against closed forms."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio as peak_signal_noise_ratio_of
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

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


def test_everywhere_they_are_those_of_the_library(clip):
    truth, mask = clip
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)) * 0.2
    pixels, everywhere = (truth + noise).clamp(-1, 1), torch.ones_like(mask)
    psnr, ssim = masked_psnr(pixels, truth, everywhere), masked_ssim(pixels, truth, everywhere)
    for index in range(len(truth)):
        pair = pixels[index], truth[index]
        expected = peak_signal_noise_ratio(*pair, data_range=2.0)
        torch.testing.assert_close(psnr[index], expected)
        _, full = structural_similarity_index_measure(*pair, data_range=2.0, return_full_image=True)
        torch.testing.assert_close(ssim[index], full.mean(), rtol=1e-4, atol=1e-5)
        # Inside a region, the library's picture of it.
        where = mask[index].expand_as(full)
        inside = masked_ssim(pixels[index][None], truth[index][None], mask[index][None])
        expected = (full * where).sum() / where.sum()
        torch.testing.assert_close(inside[0], expected, rtol=1e-4, atol=1e-5)
        assert masked_ssim(pixels[:1], truth[:1], 0 * mask[:1]).isnan().all()


def test_they_are_those_of_scikit_image(clip):
    """SSIM away from the border, where libraries continue pictures in different ways."""
    truth, mask = clip
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)) * 0.2
    pixels = (truth + noise).clamp(-1, 1)
    inner = torch.zeros_like(mask)
    inner[..., 5:-5, 5:-5] = 1
    ssim, psnr = masked_ssim(pixels, truth, inner), masked_psnr(pixels, truth, mask)
    for index in range(len(truth)):
        ours, theirs = (each[index].double().numpy() for each in (pixels, truth))
        values = [
            structural_similarity(
                one, other, data_range=2.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, full=True,
            )[1][:, 5:-5, 5:-5]
            for one, other in zip(ours, theirs, strict=True)
        ]  # fmt: skip
        assert ssim[index].item() == pytest.approx(np.mean(values), abs=1e-5)
        # The mask is 1 in the upper half.
        upper = (each[..., :16, :] for each in (theirs, ours))
        expected = peak_signal_noise_ratio_of(*upper, data_range=2.0)
        assert psnr[index].item() == pytest.approx(expected, abs=1e-3)


def test_ssim_is_one_for_equal_pictures_and_less_only_where_they_differ(clip):
    truth, mask = clip
    torch.testing.assert_close(masked_ssim(truth, truth, mask), torch.ones(2))
    changed = truth.clone()
    changed[..., 24:, :] = changed[..., 24:, :].flip(-1)
    assert (masked_ssim(changed, truth, 1 - mask) < 0.8).all()
    assert (masked_ssim(changed, truth, mask) > 0.95).all()
