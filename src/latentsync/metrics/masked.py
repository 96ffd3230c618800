"""PSNR and SSIM inside and outside the regenerated region; pixels in [-1, 1]."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from latentsync.metrics.base import Figure, MeanOverClips

PIXEL_RANGE = 2.0
MAX_PSNR = 100.0  # assigned to identical pictures, whose PSNR is infinite
# Region => (the input to compare with, the input that marks the region).
REGIONS = {"inside": ("truth", "painted"), "outside": ("original", "kept")}


def masked_psnr(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """PSNR in dB of each clip over the pixels where `region` is 1; inf for identical pictures."""
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


class MaskedMean(MeanOverClips):
    """A picture comparison `inside` the painted region or `outside` it.

    Masks have soft edges; pixels that are partly painted belong to neither region.
    """

    def __init__(self, region: str) -> None:
        super().__init__()
        if region not in REGIONS:
            raise ValueError(f"region={region!r} must be one of {', '.join(REGIONS)}")
        self.reference, self.where = REGIONS[region]
        self.needs = frozenset({"pixels", self.reference, self.where})


class MaskedPSNR(MaskedMean):
    """PSNR; an identical clip counts as MAX_PSNR to keep the mean finite."""

    def __init__(self, region: str) -> None:
        super().__init__(region)
        self.figures = (
            Figure(
                f"psnr_{region}", f"PSNR {region}, dB", "dB", "higher", 0.0, MAX_PSNR,
                "10 log10(range^2 / MSE)", "{:.1f}",
            ),
        )  # fmt: skip

    def update(self, pixels: Float[Tensor, "b f c h w"], **given: Tensor) -> None:
        """Add clips; `given` holds the inputs named in `needs`."""
        values = masked_psnr(pixels, given[self.reference], given[self.where])
        self.add(values.clamp(max=MAX_PSNR))


class MaskedSSIM(MaskedMean):
    """SSIM, Gaussian 11x11."""

    def __init__(self, region: str) -> None:
        super().__init__(region)
        self.figures = (
            Figure(
                f"ssim_{region}", f"SSIM {region}", "SSIM", "higher", -1.0, 1.0,
                "Wang et al. 2004",
            ),
        )  # fmt: skip

    def update(self, pixels: Float[Tensor, "b f c h w"], **given: Tensor) -> None:
        """Add clips; `given` holds the inputs named in `needs`."""
        self.add(masked_ssim(pixels, given[self.reference], given[self.where]))
