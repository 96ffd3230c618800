"""Artefacts of redrawn mouths: softness, trembling lips, seams between chunks, a border of another
colour. Levels are in [-1, 1]; ratios are 1 where the result is as its truth.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentsync.metrics.base import ClipRows, Figure, MeanOverClips
from latentsync.metrics.blocks import blocks
from latentsync.metrics.temporal import SMALLEST_STEP, bounding_part, is_still

LUMA = (0.299, 0.587, 0.114)
# Variance of the Laplacian of rounding to 8 bits, (20 / 12) levels squared: nothing is smoother.
SMALLEST_DETAIL = 20 / 12 / 127.5**2
SMALLEST_TREMBLE = 1e-4
RING = 4  # pixels on either side of the mask's border
GREY_LEVELS = 127.5

Pixels = Float[Tensor, "b f c h w"]
Region = Float[Tensor, "b f 1 h w"]


def sharpness(pixels: Pixels, truth: Pixels, region: Region) -> Float[Tensor, " b"]:
    """Variance of the Laplacian of the luma in the region, relative to the truth's."""
    part = bounding_part(region, margin=1)
    ours, theirs = (_detail(each[part], region[part]) for each in (pixels, truth))
    return ours / theirs.clamp(min=SMALLEST_DETAIL)


def tremble(lips: Float[Tensor, "f n 2"]) -> float:
    """Mean length of the second temporal difference of the points; NaN frames do not count."""
    return lips.diff(n=2, dim=0).norm(dim=-1).nanmean().item()


def seam(pixels: Pixels, truth: Pixels, region: Region, *, period: int) -> Float[Tensor, " b"]:
    """Step between frames where chunks of `period` frames meet over that elsewhere, relative to the
    same of the truth; NaN for clips of one chunk.
    """
    part = bounding_part(region)
    ours, theirs = (_steps(each[part], region[part]) for each in (pixels, truth))
    at_seam = torch.zeros(ours.shape[1], dtype=torch.bool, device=ours.device)
    at_seam[period - 1 :: period] = True

    def ratio(steps: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        elsewhere = steps[:, ~at_seam].mean(dim=1)
        return steps[:, at_seam].mean(dim=1) / elsewhere.clamp(min=SMALLEST_STEP)

    return ratio(ours) / ratio(theirs).clamp(min=SMALLEST_STEP)


def color_step(pixels: Pixels, truth: Pixels, mask: Region) -> Float[Tensor, " b"]:
    """How much further apart the mean colours on both sides of the mask's border are than in the
    truth: the mean distance over frames, in grey levels of 255.
    """
    inner, outer = _rings(mask)
    part = bounding_part(inner + outer)
    apart = [
        _mean_color(one - other, within) - _mean_color(one - other, around)
        for one, other, within, around in blocks(*(x[part] for x in (pixels, truth, inner, outer)))
    ]
    return (
        torch.cat(apart, dim=1).norm(dim=-1).mean(dim=1) / math.sqrt(pixels.shape[2]) * GREY_LEVELS
    )


class Sharpness(MeanOverClips):
    """Sharpness of the painted region, relative to faces that say the same."""

    needs = frozenset({"pixels", "truth", "painted"})
    figures = (
        Figure("mouth_sharpness", "sharpness, truth 1", "ratio", "1", 0.0, math.inf,
               "variance of the Laplacian (Pech-Pacheco 2000)", "{:.2f}"),
    )  # fmt: skip

    def update(self, pixels: Pixels, truth: Pixels, painted: Region) -> None:
        """Add clips."""
        self.add(sharpness(pixels, truth, painted))


class Jitter(ClipRows):
    """Trembling of the lips by landmarks, relative to those of the face whose voice is spoken."""

    needs = frozenset({"lips", "driving_lips"})
    figures = (Figure("jitter", "jitter, truth 1", "ratio", "1", 0.0, math.inf, "here", "{:.2f}"),)

    def update(self, lips: Float[Tensor, "f n 2"], driving_lips: Float[Tensor, "f n 2"]) -> None:
        """Add one clip."""
        ratio = tremble(lips) / max(tremble(driving_lips), SMALLEST_TREMBLE)
        self.add_rows(torch.tensor([[ratio]]))


class Seam(MeanOverClips):
    """Steps where chunks meet; `period`: frames from one chunk to the next."""

    needs = frozenset({"pixels", "original", "painted"})
    figures = (Figure("seam", "seam, truth 1", "ratio", "1", 0.0, math.inf, "here", "{:.2f}"),)

    def __init__(self, period: int) -> None:
        super().__init__()
        if period < 2:
            raise ValueError(f"metrics.seam.period={period}: chunks have two frames or more")
        self.period = period

    def update(self, pixels: Pixels, original: Pixels, painted: Region) -> None:
        """Add clips."""
        self.add(seam(pixels, original, painted, period=self.period))


class ColorStep(MeanOverClips):
    """A face whose painted part has another colour than what surrounds it."""

    needs = frozenset({"pixels", "original", "painted"})
    figures = (
        Figure("color_step", "colour step", "grey levels", "0", 0.0, 255.0, "here", "{:.1f}"),
    )

    def update(self, pixels: Pixels, original: Pixels, painted: Region) -> None:
        """Add clips."""
        self.add(color_step(pixels, original, painted))


def _detail(pixels: Pixels, region: Region) -> Float[Tensor, " b"]:
    edges = torch.cat([_laplacian(some) for (some,) in blocks(pixels)], dim=1)
    count = region.sum(dim=(1, 2, 3, 4))
    mean = (edges * region).sum(dim=(1, 2, 3, 4)) / count
    return ((edges - mean[:, None, None, None, None]).square() * region).sum(
        dim=(1, 2, 3, 4)
    ) / count


def _laplacian(pixels: Pixels) -> Region:
    """Of the luma."""
    weights = pixels.new_tensor(LUMA)[:, None, None]
    luma = F.pad((pixels * weights).sum(dim=2), (1, 1, 1, 1), mode="replicate")
    around = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    return around.sub_(luma[..., 1:-1, 1:-1], alpha=4)[:, :, None]


def _steps(pixels: Pixels, region: Region) -> Float[Tensor, "b n"]:
    """Mean step to the next frame in the region."""
    steps = [
        some.diff(dim=1).abs_().mul_(where[:, 1:]).sum(dim=(2, 3, 4))
        for some, where in blocks(pixels, region, overlap=1)
    ]
    return torch.cat(steps, dim=1) / pixels.shape[2] / region[:, 1:].sum(dim=(2, 3, 4))


def _rings(mask: Region) -> tuple[Region, Region]:
    """The pixels within RING of the border, inside the mask and outside."""
    still = is_still(mask)
    flat = rearrange(mask[:1, :1] if still else mask, "b f 1 h w -> (b f) 1 h w")

    def grown(area: Tensor) -> Tensor:
        return F.max_pool2d(area, 2 * RING + 1, stride=1, padding=RING)

    rings = flat * grown(1 - flat), (1 - flat) * grown(flat)
    if still:
        inner, outer = (ring.expand_as(mask) for ring in rings)
    else:
        inner, outer = (ring.reshape(mask.shape) for ring in rings)
    return inner, outer


def _mean_color(pixels: Pixels, region: Region) -> Float[Tensor, "b f c"]:
    total = pixels.flatten(3) @ region.flatten(3).transpose(2, 3)
    return total[..., 0] / region.sum(dim=(3, 4)).clamp(min=1)
