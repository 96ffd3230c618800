"""PSNR and SSIM inside and outside the regenerated region; pixels in [-1, 1]."""

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentsync.faces.tracking.opencv_threads import single_opencv_thread
from latentsync.metrics.base import Figure, MeanOverClips
from latentsync.metrics.blocks import blocks

PIXEL_RANGE = 2.0
RADIUS, SIGMA = 5, 1.5  # of the window of SSIM
MAX_PSNR = 100.0  # assigned to identical pictures, whose PSNR is infinite
# Region => (the input to compare with, the input that marks the region).
REGIONS = {"inside": ("truth", "painted"), "outside": ("original", "kept")}


def masked_psnr(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """PSNR in dB of each clip over the pixels where `region` is 1; inf for identical pictures."""
    errors = [
        (one - other).square_().mul_(where != 0).sum(dim=(1, 2, 3, 4))
        for one, other, where in blocks(pixels, truth, region)
    ]
    num_pixels = region.bool().sum(dim=(1, 2, 3, 4))
    mean = torch.stack(errors).sum(dim=0) / num_pixels / pixels.shape[2]
    return (10 * torch.log10(PIXEL_RANGE**2 / mean)).to(pixels.dtype)


@single_opencv_thread()
def masked_ssim(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """SSIM (Gaussian 11x11) of each clip, averaged over the pixels where `region` is 1."""
    means = [
        torch.stack([_ssim_sum(*frame) for frame in zip(*clip, strict=True)]).sum(dim=0)
        for clip in zip(pixels, truth, region, strict=True)
    ]
    sums, counts = torch.stack(means).T
    return (sums / counts / pixels.shape[2]).to(pixels.dtype)


def _ssim_sum(
    picture: Float[Tensor, "c h w"], truth: Float[Tensor, "c h w"], region: Float[Tensor, "1 h w"]
) -> Float[Tensor, "2"]:
    """Sum of SSIM over the region and all channels, and the pixels of the region."""
    rows, columns = (torch.where(region[0].amax(dim=axis) > 0)[0] for axis in (1, 0))
    if not len(rows):
        return torch.zeros(2, dtype=torch.float64)
    part = (_span(rows, region.shape[1]), _span(columns, region.shape[2]))
    ours, theirs, (where,) = (
        each[:, part[0], part[1]].float().cpu().numpy() for each in (picture, truth, region)
    )
    # Channel by channel, as they lie in memory.
    totals = [
        (ssim_map(one, other) * where).sum(dtype=np.float64)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return torch.tensor([sum(totals), where.sum(dtype=np.float64)])


def _span(places: Int[Tensor, " n"], length: int) -> slice:
    """What the places, and the windows around them, cover."""
    first, last = int(places[0]) - RADIUS, int(places[-1]) + RADIUS
    return slice(max(first, 0), min(last + 1, length))


def ssim_map(
    one: Float[np.ndarray, "h w"], other: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """SSIM (Wang et al. 2004) at every pixel: a Gaussian of 1.5 pixels, of 11x11."""

    def blurred(picture: np.ndarray) -> np.ndarray:
        side = (2 * RADIUS + 1, 2 * RADIUS + 1)
        return cv2.GaussianBlur(picture, side, SIGMA, borderType=cv2.BORDER_REFLECT_101)

    floor, spread_floor = (0.01 * PIXEL_RANGE) ** 2, (0.03 * PIXEL_RANGE) ** 2
    mean, other_mean = blurred(one), blurred(other)
    spread = one * one
    spread += other * other
    spread, common = blurred(spread), blurred(one * other)
    # In place, as new arrays take as long as the arithmetic.
    product = mean * other_mean
    squares = np.multiply(mean, mean, out=mean)
    squares += np.multiply(other_mean, other_mean, out=other_mean)
    spread -= squares
    common -= product
    for value, factor, least in (
        (product, 2, floor),
        (squares, 1, floor),
        (common, 2, spread_floor),
        (spread, 1, spread_floor),
    ):
        value *= factor
        value += least
    product /= squares
    product *= common
    product /= spread
    return product


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
