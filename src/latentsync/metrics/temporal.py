"""The artefacts viewers notice first: flicker between frames, and a visible mask border."""

import math
from types import EllipsisType

import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.metrics.base import Figure, MeanOverClips
from latentsync.metrics.blocks import blocks

# The flicker of a still picture is 0, so the ratio needs a floor: half a grey level in [-1, 1].
SMALLEST_STEP = 0.5 / 127.5


def flicker(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    region: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """Mean |second temporal difference| in the region, relative to the truth; 1 = as steady."""
    part = bounding_part(region)
    ours, theirs = (_unrest(each[part], region[part]) for each in (pixels, truth))
    return ours / theirs.clamp(min=SMALLEST_STEP)


def border_contrast(
    pixels: Float[Tensor, "b f c h w"],
    truth: Float[Tensor, "b f c h w"],
    mask: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, " b"]:
    """Mean |step| between pixels across the mask border, relative to the truth; 1 = invisible."""
    ours, theirs = _border_step(pixels, mask), _border_step(truth, mask)
    return ours / theirs.clamp(min=SMALLEST_STEP)


class Flicker(MeanOverClips):
    """Flicker of the painted region, relative to the original faces."""

    needs = frozenset({"pixels", "original", "painted"})
    figures = (
        Figure("flicker", "flicker, truth 1", "ratio", "1", 0.0, math.inf, "here", "{:.2f}"),
    )

    def update(
        self,
        pixels: Float[Tensor, "b f c h w"],
        original: Float[Tensor, "b f c h w"],
        painted: Float[Tensor, "b f 1 h w"],
    ) -> None:
        """Add clips."""
        self.add(flicker(pixels, original, painted))


class BorderContrast(MeanOverClips):
    """Visibility of the mask border, relative to the original faces."""

    needs = frozenset({"pixels", "original", "painted"})
    figures = (Figure("border", "border, truth 1", "ratio", "1", 0.0, math.inf, "here", "{:.2f}"),)

    def update(
        self,
        pixels: Float[Tensor, "b f c h w"],
        original: Float[Tensor, "b f c h w"],
        painted: Float[Tensor, "b f 1 h w"],
    ) -> None:
        """Add clips."""
        self.add(border_contrast(pixels, original, painted))


def is_still(mask: Float[Tensor, "b f 1 h w"]) -> bool:
    """Whether all frames have one mask, as is the rule."""
    one_in_memory = len(mask) == 1 and mask.stride(1) == 0
    return one_in_memory or bool((mask == mask[:1, :1]).all())


def bounding_part(
    region: Float[Tensor, "b f 1 h w"], *, margin: int = 0
) -> tuple[slice | EllipsisType, ...]:
    """What to index pictures with for the rows and columns that a region touches."""
    flat = region.amax(dim=(0, 1, 2))
    spans = []
    for axis in (1, 0):
        places = torch.where(flat.amax(dim=axis) > 0)[0].tolist() or [0]
        spans.append(slice(max(places[0] - margin, 0), places[-1] + 1 + margin))
    return (..., *spans)


def _unrest(
    pixels: Float[Tensor, "b f c h w"], region: Float[Tensor, "b f 1 h w"]
) -> Float[Tensor, " b"]:
    """Mean |second temporal difference| in the region of the frames between."""
    total = pixels.new_zeros(len(pixels))
    for some, where in blocks(pixels, region, overlap=2):
        second = some[:, 2:].sub(some[:, 1:-1], alpha=2).add_(some[:, :-2])
        total += second.abs_().mul_(where[:, 1:-1]).sum(dim=(1, 2, 3, 4))
    return total / (region[:, 1:-1].sum(dim=(1, 2, 3, 4)) * pixels.shape[2])


def _border_step(
    pixels: Float[Tensor, "b f c h w"], mask: Float[Tensor, "b f 1 h w"]
) -> Float[Tensor, " b"]:
    sums = []
    still = is_still(mask)
    for clip, where in zip(pixels, mask[:, :, 0], strict=True):
        steps = []
        for axis in (-1, -2):
            # Few pixels lie at the border: only those are looked at.
            borders = where[:1].diff(dim=axis) if still else where.diff(dim=axis)
            frame, row, column = (borders != 0).nonzero(as_tuple=True)
            beside = (row, column + 1) if axis == -1 else (row + 1, column)
            if still:
                step = clip[:, :, beside[0], beside[1]] - clip[:, :, row, column]
            else:
                step = clip[frame, :, beside[0], beside[1]] - clip[frame, :, row, column]
            steps.append(step.abs().flatten())
        # The mean of so many float32 would depend on the number of threads.
        sums.append(torch.cat(steps).double().mean())
    return torch.stack(sums).to(pixels.dtype)
