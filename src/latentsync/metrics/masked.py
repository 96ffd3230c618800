"""PSNR and SSIM of the regenerated region and of the rest, apart; pixels in [-1, 1]."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

PIXEL_RANGE = 2.0


def masked_psnr(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """PSNR in dB of each clip over the pixels where `region` is 1; inf for equal pictures."""
    chosen = region.bool().expand_as(pixels)
    return torch.stack(
        [
            peak_signal_noise_ratio(one[where], other[where], data_range=PIXEL_RANGE)
            for one, other, where in zip(pixels, truth, chosen, strict=True)
        ]
    )


def masked_ssim(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """SSIM (Gaussian 11x11) of each clip, averaged over the pixels where `region` is 1."""
    _, similarity = structural_similarity_index_measure(
        rearrange(pixels, "b f c h w -> (b f) c h w"),
        rearrange(truth, "b f c h w -> (b f) c h w"),
        data_range=PIXEL_RANGE,
        return_full_image=True,
    )
    similarity = rearrange(similarity, "(b f) c h w -> b f c h w", b=len(pixels))
    chosen = region.expand_as(similarity)
    return (similarity * chosen).sum(dim=(1, 2, 3, 4)) / chosen.sum(dim=(1, 2, 3, 4))
